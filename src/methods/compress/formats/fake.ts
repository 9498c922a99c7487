import { weightLayers } from '../../../graph/weight-layers.js';
import { replaceEdit } from '../../../graph/weight-matrix.js';
import { Workspace } from '../../../graph/workspace.js';
import type { Model } from '../../../onnx/index.js';
import { dequantize } from '../maths/quantize.js';
import { quantizeLayer } from './integer-weights.js';
import type { ChooseFormat, StoredLayer } from './layers.js';
import { refuseQuantized } from './refuse-quantized.js';

/**
 * Rounds weights and stores them as the floats they were, to study what rounding costs: the file
 * gets neither smaller nor faster. A tensor that several layers read is rounded as the first says.
 * @returns each layer, in file order
 * @throws {ResectError} exit 5 for quantised models and weights that are not finite; 2 for bits other
 *   than 2 to 16
 */
export async function storeRounded(model: Model, choose: ChooseFormat): Promise<StoredLayer[]> {
  refuseQuantized(model.proto);
  const { layers, skipped } = weightLayers(new Workspace(model));
  const reports: StoredLayer[] = [];
  const rounded = new Set();
  for (const layer of layers) {
    const { name, op, shape, weight } = layer;
    const format = choose(layer);
    const { tensor } = weight.view;
    if (!format) {
      reports.push({ name, op, shape, status: 'unchanged' });
      continue;
    }
    if (!rounded.has(tensor)) {
      const quantized = await quantizeLayer(model, layer, format, { most: 16 });
      const values = Float32Array.from(dequantize(quantized));
      model.edits.set(tensor, await replaceEdit(model, weight, values));
      rounded.add(tensor);
    }
    reports.push({ name, op, shape, status: 'changed', bits: format.bits });
  }
  return [...reports, ...skipped];
}
