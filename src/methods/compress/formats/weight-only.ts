import { weightLayers } from '../../../graph/weight-layers.js';
import { Workspace } from '../../../graph/workspace.js';
import type { Model, NodeProto } from '../../../onnx/index.js';
import { requireOpset } from '../../opset.js';
import { IntegerStore, quantizeLayer } from './integer-weights.js';
import type { ChooseFormat, StoredLayer } from './layers.js';
import { refuseQuantized } from './refuse-quantized.js';

/** Codes of up to so many bits are stored two to a byte. */
const int4Bits = 4;

/**
 * Stores weights as int8 or, up to 4 bits, as int4, in front of a DequantizeLinear; activations stay
 * floats. The file shrinks, and the model gets no faster: ONNX Runtime computes the weights anew in each
 * run, and its convolutions are slower with weights that are not constant. Its session option
 * `session.disable_quant_qdq` makes it fold them at load, to the speed of floats.
 * The model is edited in memory; it comes to opset 13, or 21 where int4 is in it.
 * @returns each layer, in file order
 * @throws {ResectError} exit 5 for quantised models, weights that are not finite, and ops without an
 *   equal in the opset; 2 for bits other than 2 to 8
 */
export async function storeWeightOnly(model: Model, choose: ChooseFormat): Promise<StoredLayer[]> {
  refuseQuantized(model.proto);
  const bits = weightLayers(new Workspace(model)).layers.map((layer) => choose(layer)?.bits);
  requireOpset(model, bits.some((b) => b !== undefined && b <= int4Bits) ? 21 : 13);

  const workspace = new Workspace(model);
  const { layers, skipped } = weightLayers(workspace);
  const store = new IntegerStore(workspace);
  const reports: StoredLayer[] = [];
  const replaced = new Map<NodeProto, NodeProto[]>();
  for (const layer of layers) {
    const { name, op, shape, node, weight } = layer;
    const format = choose(layer);
    const { dtype } = weight.view;
    if (!format || dtype !== 'float32') {
      const status = format ? ('skipped' as const) : ('unchanged' as const);
      reports.push({ name, op, shape, status, reason: format && `computes in ${dtype}` });
      continue;
    }
    const quantized = await quantizeLayer(model, layer, format);
    const stored = store.add(layer, quantized, {
      bits: format.bits,
      dtype: format.bits <= int4Bits ? 'int4' : 'int8',
    });
    const input = node.input.map((read, i) => (i === 1 ? stored.output : read));
    replaced.set(node, [...(stored.node ? [stored.node] : []), { ...node, input }]);
    reports.push({ name, op, shape, status: 'changed', ...stored.report });
  }
  workspace.commit(workspace.graph.node.flatMap((node) => replaced.get(node) ?? [node]));
  return [...reports, ...skipped];
}
