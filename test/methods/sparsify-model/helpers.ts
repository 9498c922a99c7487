import type { Dataset } from '../../../src/data/index.js';
import { inlineFunctions } from '../../../src/graph/functions.js';
import { Graph } from '../../../src/graph/graph.js';
import { findLinearLayers, type LinearLayer } from '../../../src/graph/linear-layers.js';
import { readMatrix } from '../../../src/graph/weight-matrix.js';
import { sparsify } from '../../../src/methods/sparsify/method.js';
import type { Model } from '../../../src/onnx/index.js';

export const layersOf = (model: Model): LinearLayer[] =>
  findLinearLayers(new Graph(inlineFunctions(model.proto)));

/** Weights `[out, in]` by layer name, edits applied, of all layers that have some. */
export async function layerWeights(model: Model): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const { name, weight } of layersOf(model))
    if (weight) found.set(name, await readMatrix(model, weight));
  return found;
}

/** Which weights are not zero, as text, so that a difference is shown briefly. */
export const zeroPattern = (w: Float32Array): string =>
  Buffer.from(Uint8Array.from(w, (v) => (v === 0 ? 0 : 1))).toString('hex');

export interface Pruning {
  parameters: Parameters<typeof sparsify.parameters.parse>[0];
  dataset?: Dataset;
  indices?: number[];
  selects?: (name: string) => boolean;
}

/** Applies sparsify to a model in memory. */
export function sparsifyInMemory(model: Model, { parameters, dataset, indices, selects }: Pruning) {
  return sparsify.apply(model, sparsify.parameters.parse(parameters), {
    calibration: dataset && {
      dataset,
      indices: indices ?? Array.from({ length: dataset.length }, (_, i) => i),
    },
    selects: selects ?? (() => true),
    threads: 2,
    seed: 0,
    progress: () => {},
  });
}
