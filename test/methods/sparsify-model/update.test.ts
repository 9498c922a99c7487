import type { Dataset } from '../../../src/data/index.js';
import {
  reduceActivation,
  StatisticsAccumulator,
} from '../../../src/methods/calibration/statistics.js';
import { factorHessian } from '../../../src/methods/sparsify/cholesky.js';
import { parsePattern } from '../../../src/methods/sparsify/pattern.js';
import { sparseGpt } from '../../../src/methods/sparsify/sparsegpt.js';
import { encodeModel, type Model, parseModel, serializeModel } from '../../../src/onnx/index.js';
import { noise } from '../../graph/helpers.js';
import { tokenRows } from '../../runtime/brute-force.js';
import { model, node, value, weight } from '../../support/protos.js';
import { layersOf, layerWeights, sparsifyInMemory } from './helpers.js';

const samples = 8;
const sample = (dims: number[], i: number) =>
  noise(
    dims.reduce((a, b) => a * b, 1),
    i + 1,
  );

const dataset = (dims: number[]): Dataset => ({
  path: 'samples',
  task: 'none',
  length: samples,
  files: [],
  example: async (i) => ({
    inputs: { x: { dtype: 'float32', dims: dims.slice(1), data: sample(dims, i) } },
  }),
});

/** What SparseGPT makes of each group of the only layer, from statistics taken in plain JavaScript. */
async function expected(m: Model, dims: number[], pattern: string): Promise<number[]> {
  const [{ weight: w, layout }] = layersOf(m);
  const { rows, cols, groups } = w!;
  const [values] = (await layerWeights(m)).values();
  const updated: number[] = [];
  for (let g = 0; g < groups; g++) {
    const statistics = new StatisticsAccumulator(cols, { gram: true });
    for (let i = 0; i < samples; i++) {
      const tokens = tokenRows({ dims, data: sample(dims, i) }, layout!);
      const own = Float32Array.from(tokens.flatMap((row) => row.slice(g * cols, (g + 1) * cols)));
      statistics.add(reduceActivation(own, tokens.length, cols, { gram: true }));
    }
    const factor = factorHessian(statistics.finish().hessian!, cols)!;
    const per = rows / groups;
    const part = values.slice(g * per * cols, (g + 1) * per * cols);
    updated.push(...sparseGpt(part, per, factor, parsePattern(pattern)).weights);
  }
  return updated;
}

const dense = () =>
  parseModel(
    encodeModel(
      model({
        input: [value('x', [1, 6, 16])],
        initializer: [weight('w', [16, 8])],
        node: [node('MatMul', ['x', 'w'], ['y'])],
        output: [{ name: 'y' }],
      }),
    ),
  );
const grouped = () =>
  parseModel(
    encodeModel(
      model({
        input: [value('x', [1, 4, 6, 6])],
        initializer: [weight('w', [6, 2, 2, 2])],
        node: [node('Conv', ['x', 'w'], ['y'], { group: 2, strides: [1, 2] })],
        output: [{ name: 'y' }],
      }),
    ),
  );

test.each<[string, () => Model, number[], string]>([
  ['MatMul, half of all weights', dense, [1, 6, 16], '0.5'],
  ['MatMul, 2:4', dense, [1, 6, 16], '2:4'],
  ['convolution of two groups, half of all weights', grouped, [1, 4, 6, 6], '0.5'],
  ['convolution of two groups, 2:4', grouped, [1, 4, 6, 6], '2:4'],
])('SparseGPT with --update: %s', async (_, make, dims, pattern) => {
  const m = make();
  const wanted = await expected(m, dims, pattern);
  const { layers } = await sparsifyInMemory(m, {
    parameters: {
      ...(pattern.includes(':') ? { nm: pattern } : { sparsity: Number(pattern) }),
      init: 'sparsegpt',
      update: true,
    },
    dataset: dataset(dims),
  });
  const [written] = (await layerWeights(parseModel(await serializeModel(m)))).values();
  expect(Array.from(written, (v) => v === 0)).toEqual(wanted.map((v) => v === 0));
  for (const [i, v] of written.entries()) expect(v).toBeCloseTo(wanted[i], 4);
  const zeros = wanted.filter((v) => v === 0).length / wanted.length;
  expect(layers[0]).toMatchObject({
    status: 'changed',
    sparsity: { before: expect.any(Number), after: zeros },
  });
});
