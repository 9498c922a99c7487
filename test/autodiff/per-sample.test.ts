import fc from 'fast-check';
import { type GradientModel, gradients, type Target } from '../../src/autodiff/gradients.js';
import { int, makeNode } from '../../src/graph/build.js';
import { type ModelProto, readModel } from '../../src/onnx/index.js';
import type { Feeds } from '../../src/runtime/session.js';
import { goldenPath } from '../methods/unlearn/golden-ssd.js';
import { gptMoby } from '../support/fixtures.js';
import { ints, node } from '../support/protos.js';
import { goldenBatch, goldenCase, gradientError, rowsOf } from './golden.js';
import { float32, float64, int64, network, stored, withGradients } from './small-models.js';

/** Sums over samples that are run one by one: of gradients, and of their squares. */
async function oneByOne(model: GradientModel, feeds: Feeds, target: Target, samples: number) {
  const sums = {
    gradients: new Map<string, Float64Array>(),
    squares: new Map<string, Float64Array>(),
  };
  const [rows] = await model.rows(feeds);
  const each = rows / samples;
  for (let i = 0; i < samples; i++) {
    const own = Object.fromEntries(
      Object.entries(feeds).map(([name, feed]) => [name, rowsOf(feed, i, i + 1)]),
    );
    const step = await model.run(own, {
      target: target.target && rowsOf(target.target, ...share(target.target.dims[0], samples, i)),
      weight: (target.weight ?? new Float64Array(rows).fill(1)).slice(i * each, (i + 1) * each),
    });
    for (const [name, g] of step.gradients) {
      const sum = sums.gradients.get(name) ?? new Float64Array(g.length);
      const squares = sums.squares.get(name) ?? new Float64Array(g.length);
      for (let k = 0; k < g.length; k++) {
        sum[k] += g[k];
        squares[k] += g[k] ** 2;
      }
      sums.gradients.set(name, sum);
      sums.squares.set(name, squares);
    }
  }
  return sums;
}

const share = (length: number, samples: number, i: number): [number, number] => [
  (length / samples) * i,
  (length / samples) * (i + 1),
];

/** Checks squares, and that the batch's gradient is the sum of those of its samples. */
async function check(
  model: GradientModel,
  feeds: Feeds,
  target: Target,
  samples: number,
  tolerance: number,
) {
  const [rows] = await model.rows(feeds);
  const weighted = { weight: new Float64Array(rows).fill(1), ...target };
  const { gradients: sum, squares } = await oneByOne(model, feeds, weighted, samples);
  const batch = await model.run(feeds, weighted);
  expect(gradientError(batch.gradients, sum)).toBeLessThan(tolerance);
  const step = await model.runSquares(feeds, weighted);
  expect(step).toBeDefined();
  if (!step) return;
  expect(gradientError(step.gradients, squares)).toBeLessThan(tolerance);
  expect(Math.abs(step.loss - batch.loss)).toBeLessThan(tolerance * Math.abs(batch.loss));
  expect(step.losses).toHaveLength(rows);
}

describe('squares of trained models, over samples', () => {
  test.each(['cnn', 'mlp'])('%s', async (name) => {
    const source = await readModel(goldenPath(`${name}/${name}.onnx`));
    await withGradients(source, { loss: 'cross-entropy' }, (model) =>
      check(
        model,
        { [model.inputs[0].name]: float32([6, 1, 28, 28]) },
        { target: int64([6], [3, 1, 4, 1, 5, 9]) },
        6,
        2e-6,
      ),
    );
  });

  test.each(['resnet8', 'conv-block', 'transformer-block'])('%s', async (name) => {
    const c = goldenCase(name);
    await withGradients(await readModel(c.model), { loss: 'cross-entropy' }, async (model) => {
      const { feeds, target } = goldenBatch(c);
      await check(model, feeds, { target }, feeds[c.input].dims[0], 5e-6);
    });
  });

  test('gpt-moby', async () => {
    await withGradients(
      await readModel(gptMoby.model),
      { loss: 'cross-entropy' },
      async (model) => {
        const ids = Array.from({ length: 24 }, (_, i) => (i * 37) % 512);
        const feeds = { input_ids: int64([3, 8], ids) };
        const target = int64(
          [24],
          ids.map((id) => (id * 7) % 512),
        );
        // Rows that do not count, as behind the end of a text.
        const weight = Float64Array.from(ids, (_, i) => (i % 8 < 5 + Math.floor(i / 8) ? 0.2 : 0));
        await check(model, feeds, { target, weight }, 3, 5e-6);
      },
    );
  });
});

/** Forms of layers, from x [batch, 2, 4, 4] or [batch, 3] in float64. */
const forms: Record<string, { proto: ModelProto; dims: number[] }> = {
  'Gemm, transB, alpha and beta': {
    proto: network(
      [
        {
          ...node('Gemm', ['x', 'w', 'b'], ['y'], { transB: 1 }),
          attribute: [
            int('transB', 1),
            { name: 'alpha', type: 1, f: 0.5 },
            { name: 'beta', type: 1, f: 2 },
          ],
        },
      ],
      [stored('w', [4, 3]), stored('b', [4])],
    ),
    dims: [3],
  },
  'Mul, Sub from both sides, LayerNormalization': {
    proto: network(
      [
        node('MatMul', ['x', 'w'], ['z']),
        node('Mul', ['s', 'z'], ['m']),
        node('Sub', ['b', 'm'], ['d']),
        node('LayerNormalization', ['d', 'g', 'c'], ['n']),
        node('Sub', ['n', 'e'], ['y']),
      ],
      [
        stored('w', [3, 4]),
        stored('s', [1, 4], 'float64', 3),
        stored('b', [4], 'float64', 4),
        stored('g', [4], 'float64', 5),
        stored('c', [4], 'float64', 6),
        stored('e', [4], 'float64', 7),
      ],
    ),
    dims: [3],
  },
  PRelu: {
    proto: network(
      [node('MatMul', ['x', 'w'], ['z']), node('PRelu', ['z', 's'], ['y'])],
      [stored('w', [3, 3]), stored('s', [3], 'float64', 4)],
    ),
    dims: [3],
  },
  'views of parameters': {
    proto: network(
      [
        node('Transpose', ['w'], ['t'], { perm: [2, 0, 1] }),
        node('Squeeze', ['t', 'zero'], ['r']),
        node('MatMul', ['x', 'r'], ['z']),
        node('Slice', ['table', 'from', 'to', 'axes'], ['s']),
        node('Add', ['z', 's'], ['a']),
        node('Gather', ['wte', 'rows'], ['g']),
        node('Unsqueeze', ['g', 'zero'], ['u']),
        node('Add', ['a', 'u'], ['y']),
      ],
      [
        stored('w', [3, 4, 1]),
        stored('table', [6, 7], 'float64', 3),
        stored('wte', [5, 4], 'float64', 4),
        ints('from', 1, -6),
        ints('to', 5, -2),
        ints('axes', 0, 1),
        ints('rows', 3, -3, 3, 0),
        ints('zero', 0),
      ],
      { dims: ['batch', 4, 3] },
    ),
    dims: [4, 3],
  },
  'a weight that two nodes read': {
    proto: network(
      [
        node('MatMul', ['x', 'w'], ['a']),
        node('Tanh', ['a'], ['t']),
        node('MatMul', ['t', 'w'], ['y']),
      ],
      [stored('w', [3, 3])],
    ),
    dims: [3],
  },
  'steps in time': {
    proto: network(
      [
        node('MatMul', ['x', 'w'], ['a']),
        node('Add', ['a', 'b'], ['t']),
        node('Tanh', ['t'], ['y']),
      ],
      [stored('w', [3, 5]), stored('b', [5], 'float64', 9)],
      { dims: ['batch', 'time', 3] },
    ),
    dims: [4, 3],
  },
};

describe.each(Object.entries(forms))('%s', (_, { proto, dims }) => {
  test('squares are of each sample apart, for any batch', () =>
    withGradients(proto, { loss: 'squared-norm' }, (model) =>
      fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 5 }), fc.integer(), async (batch, seed) => {
          await check(model, { x: float64([batch, ...dims], seed) }, {}, batch, 1e-9);
        }),
        { numRuns: 4, seed: 1 },
      ),
    ));
});

describe('no squares where samples cannot be told apart', () => {
  const refused: Record<string, ModelProto> = {
    'a weight that is computed of others': network(
      [
        node('MatMul', ['v', 'w'], ['t']),
        node('MatMul', ['x', 't'], ['z']),
        node('MatMul', ['z', 'w'], ['y']),
      ],
      [stored('v', [3, 3]), stored('w', [3, 3], 'float64', 2)],
    ),
    'a weight on the left': network(
      [makeNode('Transpose', ['x'], 't'), node('MatMul', ['w', 't'], ['y'])],
      [stored('w', [4, 3])],
    ),
    'an op that has no form for samples': network(
      [node('MatMul', ['x', 'w'], ['z']), node('Div', ['z', 's'], ['y'])],
      [stored('w', [3, 3]), stored('s', [3])],
    ),
    'a parameter of the whole batch': network(
      [node('MatMul', ['x', 'w'], ['z']), node('Add', ['z', 'b'], ['y'])],
      [stored('w', [3, 3]), stored('b', [2, 3])],
      { dims: [2, 3] },
    ),
  };

  test.each(Object.entries(refused))('%s', (_, proto) =>
    withGradients(proto, { loss: 'squared-norm' }, async (model) => {
      const feeds = { x: float64([2, 3]) };
      expect(await model.runSquares(feeds)).toBeUndefined();
      expect(await model.runSquares(feeds)).toBeUndefined();
      expect((await model.run(feeds)).gradients.size).toBe(model.parameters.length);
    }),
  );
});

test('gradients() is GradientModel.open()', async () => {
  const opened = await gradients(await readModel(gptMoby.model), { loss: 'cross-entropy' });
  expect(opened.output).toBe('logits');
  await opened.release();
});
