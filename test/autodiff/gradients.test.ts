import { gradients, type Target } from '../../src/autodiff/gradients.js';
import { Sgd } from '../../src/autodiff/optimizer.js';
import { NoGradientError } from '../../src/autodiff/reverse.js';
import { batchTarget } from '../../src/autodiff/targets.js';
import { batches, type Dataset, type Task, type TensorData } from '../../src/data/index.js';
import { ResectError } from '../../src/errors.js';
import { int, makeNode } from '../../src/graph/build.js';
import { computeImportances } from '../../src/methods/unlearn/ssd/importance.js';
import { decodeFloat32, encodeFloat32, type ModelProto } from '../../src/onnx/index.js';
import type { Feeds } from '../../src/runtime/session.js';
import { ints, model as makeModel, node, value } from '../support/protos.js';
import { gradientError, toNumbers } from './golden.js';
import {
  asModel,
  differences,
  float32,
  float64,
  int64,
  network,
  noise,
  scores,
  stored,
  withGradients,
} from './small-models.js';

const labels = int64([4], [1, 0, 4, 1]);
const x = float64([4, 3]);

/** Two outputs, one of them inside of the other. */
const twoOutputs = () =>
  network(
    [
      node('MatMul', ['x', 'w'], ['z']),
      node('Tanh', ['z'], ['h']),
      node('MatMul', ['h', 'v'], ['y']),
    ],
    [stored('w', [3, 4]), stored('v', [4, 2], 'float64', 5)],
    { outputs: ['y', 'h'] },
  );

describe('seeds', () => {
  const options = { loss: { seeds: ['y', 'h'] } };
  const seeds = (a: number, b: number): Feeds => ({
    y: { ...float64([4, 2]), data: noise(8, 3).map((v) => a * v) },
    h: { ...float64([4, 4]), data: noise(16, 4).map((v) => b * v) },
  });

  test('gradients are linear in them', () =>
    withGradients(twoOutputs(), options, async (model) => {
      const of = async (a: number, b: number) =>
        (await model.run({ x }, { seeds: seeds(a, b) })).gradients;
      const [first, second, both] = [await of(1, 0), await of(0, 1), await of(2, -3)];
      const expected = new Map(
        [...first].map(([name, g]) => [
          name,
          Float64Array.from(g, (v, i) => 2 * v - 3 * (second.get(name)?.[i] ?? 0)),
        ]),
      );
      expect(gradientError(both, expected)).toBeLessThan(1e-14);
      // Nothing of h's own seed passes the last weight.
      expect(second.get('v')?.every((v) => v === 0)).toBe(true);
      expect(first.get('v')?.some((v) => v !== 0)).toBe(true);
    }));

  test('those of a loss give its gradients', () =>
    withGradients(twoOutputs(), { loss: { seeds: ['y'] } }, (seeded) =>
      withGradients(twoOutputs(), { loss: 'squared-norm' }, async (model) => {
        const y = await model.predict({ x });
        const data = Float64Array.from(toNumbers(y), (v) => (2 * v) / 4);
        const step = await seeded.run({ x }, { seeds: { y: { ...y, data } } });
        expect(Number.isNaN(step.loss)).toBe(true);
        expect(step.losses).toHaveLength(0);
        const { gradients: expected } = await model.run({ x });
        expect(gradientError(step.gradients, expected)).toBeLessThan(1e-14);
        expect(await seeded.predict({ x })).toEqual(y);
      }),
    ));

  test('must be there, in the shape of their value', () =>
    withGradients(twoOutputs(), options, async (model) => {
      const { y } = seeds(1, 1);
      const misfits: Feeds[] = [{ y }, { y, h: y }];
      for (const given of misfits)
        await expect(model.run({ x }, { seeds: given })).rejects.toMatchObject({
          exitCode: 6,
          detail: { where: 'gradient of h' },
        });
    }));
});

describe('what is differentiated by', () => {
  test('parameters that were not chosen are frozen', () =>
    withGradients(
      twoOutputs(),
      { loss: 'squared-norm', parameters: ({ name }) => name === 'w' },
      async (model) => {
        const { gradients: found } = await model.run({ x });
        expect([...found.keys()]).toEqual(['w']);
        expect([...model.values.keys()]).toEqual(['w']);
        expect(gradientError(found, await differences(model, { x }, {}))).toBeLessThan(1e-9);
      },
    ));

  test('an output that is not the first', () =>
    withGradients(twoOutputs(), { loss: 'squared-norm', output: 'h' }, async (model) => {
      expect(await model.rows({ x })).toEqual([4, 4]);
      const { gradients: found } = await model.run({ x });
      expect(found.get('v')?.every((v) => v === 0)).toBe(true);
      expect(gradientError(found, await differences(model, { x }, {}))).toBeLessThan(1e-9);
    }));

  test('values are read at every run, and the user’s model stays', async () => {
    const source = asModel(scores(5));
    const before = Buffer.from(source.proto.graph?.initializer[0].rawData ?? []);
    await withGradients(source, { loss: 'cross-entropy' }, async (model) => {
      const first = await model.run({ x }, { target: labels });
      new Sgd({ learningRate: 0.1 }).step(model.values, first.gradients);
      const second = await model.run({ x }, { target: labels });
      expect(second.loss).toBeLessThan(first.loss);
    });
    expect(Buffer.from(source.proto.graph?.initializer[0].rawData ?? [])).toEqual(before);
  });

  test('more shapes than are kept ready', () =>
    withGradients(scores(5), { loss: 'squared-norm' }, async (model) => {
      const losses: number[] = [];
      for (const batch of [1, 2, 3, 4, 5, 6, 1]) {
        const { loss } = await model.run({ x: float64([batch, 3]) });
        losses.push(loss);
      }
      expect(losses[6]).toBe(losses[0]);
    }));
});

describe('half precision', () => {
  const half = (classes: number): ModelProto => {
    const made = network(
      [node('MatMul', ['x', 'w'], ['z']), node('Softmax', ['z'], ['y'])],
      [stored('w', [3, classes], 'float16')],
      { dtype: 'float16' },
    );
    return {
      ...made,
      graph: made.graph && { ...made.graph, output: [value('y', ['batch', classes], 'float16')] },
    };
  };
  const bits = (values: ArrayLike<number>): Uint16Array =>
    new Uint16Array(encodeFloat32(Float32Array.from(values), 'float16').slice().buffer);
  const fed: TensorData = { dtype: 'float16', dims: [4, 3], data: bits(noise(12, 2)) };
  const widened: TensorData = {
    dtype: 'float32',
    dims: [4, 3],
    data: decodeFloat32(new Uint8Array(fed.data.buffer), 'float16'),
  };

  test('inputs are widened, outputs and gradients are float32', () =>
    withGradients(half(5), { loss: 'cross-entropy' }, async (model) => {
      expect(model.inputs[0].dtype).toBe('float16');
      const [a, b] = [
        await model.run({ x: fed }, { target: labels }),
        await model.run({ x: widened }, { target: labels }),
      ];
      expect(a).toEqual(b);
      expect(a.gradients.get('w')).toBeInstanceOf(Float32Array);
      const y = await model.predict({ x: fed });
      expect(y).toMatchObject({ dtype: 'float32', dims: [4, 5] });
      const sums = toNumbers(y).reduce((sum, v) => sum + v, 0);
      expect(sums).toBeCloseTo(4, 5);
    }));

  test('seeds and targets in half precision are widened, too', () =>
    withGradients(half(3), { loss: 'mse' }, async (model) => {
      const a = await model.run({ x: fed }, { target: fed });
      const b = await model.run({ x: fed }, { target: widened });
      expect(a).toEqual(b);
      await withGradients(half(3), { loss: { seeds: ['y'] } }, async (seeded) => {
        const c = await seeded.run({ x: fed }, { seeds: { y: fed } });
        const d = await seeded.run({ x: fed }, { seeds: { y: widened } });
        expect(c.gradients).toEqual(d.gradients);
      });
    }));
});

describe('targets and weights in other types and shapes', () => {
  test('what holds the same numbers gives the same', () =>
    withGradients(scores(5), { loss: 'cross-entropy' }, async (model) => {
      const expected = await model.run({ x }, { target: labels });
      for (const target of [
        { dtype: 'int32' as const, dims: [4], data: Int32Array.of(1, 0, 4, 1) },
        { dtype: 'uint8' as const, dims: [2, 2], data: Uint8Array.of(1, 0, 4, 1) },
      ])
        expect(await model.run({ x }, { target })).toEqual(expected);
      const weight = Float32Array.of(0.25, 0.25, 0.25, 0.25);
      expect(await model.run({ x }, { target: labels, weight })).toEqual(expected);
    }));
});

/** Indices into a table, which a model has as int32, and no batch axis or a frozen one. */
const lookup = (dims: (number | string)[], rank = dims.length): ModelProto =>
  makeModel({
    node: [node('Gather', ['table', 'ids'], ['e']), node('MatMul', ['e', 'w'], ['y'])],
    initializer: [stored('table', [7, 3], 'float32'), stored('w', [3, 7], 'float32', 4)],
    input: [value('ids', dims, 'int32')],
    output: [value('y', [...dims.slice(0, rank), 7])],
  });

/** Examples in memory. */
const dataset = (
  task: Task,
  inputs: Record<string, TensorData>[],
  given: (number | TensorData)[],
): Dataset => ({
  path: 'memory',
  task,
  length: inputs.length,
  files: [],
  example: async (i) => ({
    inputs: inputs[i],
    label: given[i],
    ...(task === 'lm' && { tokens: Object.values(inputs[i])[0].dims[0] }),
  }),
});

const int32 = (values: number[]): TensorData => ({
  dtype: 'int32',
  dims: [values.length],
  data: Int32Array.from(values),
});

describe('batches of every kind of model', () => {
  const texts = [
    [1, 2, 3, 4],
    [5, 6, 0, 1],
    [2, 2, 6, 3],
  ];
  const text = dataset(
    'lm',
    texts.map((ids) => ({ ids: int32(ids) })),
    texts.map((ids) => int64([ids.length], ids)),
  );

  /** Mean loss over all tokens, one run after the other, and the gradients' sum. */
  async function overall(proto: ModelProto, batchSize: number) {
    return withGradients(proto, { loss: 'cross-entropy' }, async (model) => {
      let [loss, examples, shape] = [0, 0, ''];
      const sum = new Float64Array(21);
      for await (const batch of batches(text, [0, 1, 2], batchSize, model.inputs)) {
        const step = await model.run(batch.feeds, await batchTarget(model, 'lm', batch, 'sample'));
        const y = await model.predict(batch.feeds);
        loss += step.loss;
        examples += batch.size;
        shape = y.dims.join();
        const w = step.gradients.get('w') ?? [];
        for (let i = 0; i < sum.length; i++) sum[i] += w[i];
      }
      expect(examples).toBe(3);
      return { loss, sum, shape };
    });
  }

  test('an int32 input, a frozen batch and no batch axis give what a free batch gives', async () => {
    const free = await overall(lookup(['batch', 'sequence']), 3);
    expect(free.shape).toBe('3,4,7');
    for (const [dims, shape] of [
      [[2, 'sequence'], '2,4,7'],
      [['sequence'], '4,7'],
      [[4], '4,7'],
    ] as const) {
      const other = await overall(lookup([...dims]), 3);
      expect(other.shape).toBe(shape);
      expect(other.loss).toBeCloseTo(free.loss, 5);
      expect(gradientError(new Map([['w', other.sum]]), new Map([['w', free.sum]]))).toBeLessThan(
        1e-6,
      );
    }
  });

  test('regression without a batch axis: all values are of one example', () =>
    withGradients(
      network([node('MatMul', ['x', 'w'], ['y'])], [stored('w', [3, 2], 'float32')], {
        dims: [3],
        dtype: 'float32',
      }),
      { loss: 'mse' },
      async (model) => {
        const truth = [0.5, -0.25];
        const data = dataset(
          'regression',
          [{ x: float32([3]) }],
          [{ dtype: 'float32', dims: [2], data: Float32Array.from(truth) }],
        );
        for await (const batch of batches(data, [0], 8, model.inputs)) {
          const { loss } = await model.run(
            batch.feeds,
            await batchTarget(model, 'regression', batch),
          );
          const y = toNumbers(await model.predict(batch.feeds));
          const expected = y.reduce((sum, v, i) => sum + (v - truth[i]) ** 2 / 2, 0);
          expect(loss).toBeCloseTo(expected, 6);
        }
      },
    ));
});

describe('importances of single examples', () => {
  /** The batch becomes the second of three axes; the first is as long as two examples are many. */
  const moved = network(
    [
      node('Reshape', ['x', 'shape'], ['s']),
      node('Transpose', ['s'], ['r'], { perm: [1, 0, 2] }),
      node('MatMul', ['r', 'w'], ['m']),
      node('Tanh', ['m'], ['t']),
      node('Transpose', ['t'], ['b'], { perm: [1, 0, 2] }),
      makeNode('Flatten', ['b'], 'y', [int('axis', 1)]),
    ],
    [ints('shape', -1, 2, 3), stored('w', [3, 2], 'float32')],
    { dims: ['batch', 6], dtype: 'float32' },
  );
  const plain = network(
    [node('MatMul', ['x', 'w'], ['m']), node('Tanh', ['m'], ['y'])],
    [stored('w', [6, 2], 'float32')],
    { dims: ['batch', 6], dtype: 'float32' },
  );

  test.each([
    ['a graph that moves the batch to another axis', moved],
    ['a graph that keeps it', plain],
  ])('%s', (_, proto) =>
    withGradients(proto, { loss: 'squared-norm' }, async (model) => {
      const inputs = [1, 2, 3, 4].map((seed) => ({ x: float32([6], seed) }));
      const examples = { dataset: dataset('none', inputs, []), indices: [0, 1, 2, 3] };
      const expected = new Float64Array(model.values.get('w')?.length ?? 0);
      for (const { x: row } of inputs) {
        const { gradients: found } = await model.run({ x: { ...row, dims: [1, 6] } });
        for (const [i, g] of (found.get('w') ?? []).entries()) expected[i] += g * g;
      }
      const store = await computeImportances(model, examples, {
        task: 'none',
        kind: 'fisher-batch',
        loss: 'sqnorm-logits',
        batchSize: 1,
        order: 'as-given',
        modelSha256: '',
        progress: () => {},
      });
      const got = new Map([['w', await store.sums('w')]]);
      expect(gradientError(got, new Map([['w', expected]]))).toBeLessThan(1e-5);
    }),
  );
});

describe('refusals', () => {
  const refused = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => undefined,
      (error: unknown) => error,
    );

  test('a model without parameters, or none chosen', async () => {
    const error = await refused(
      gradients(asModel(network([node('Tanh', ['x'], ['y'])], [])), { loss: 'mse' }),
    );
    expect(error).toMatchObject({ exitCode: 5, detail: { got: 'no parameters' } });
    const none = gradients(asModel(scores(5)), { loss: 'mse', parameters: () => false });
    expect(await refused(none)).toMatchObject({
      exitCode: 5,
      detail: { got: '1 parameters, none of them chosen' },
    });
  });

  test.each<[string, Target, object]>([
    [
      'a class too many',
      { target: int64([4], [1, 0, 5, 1]) },
      { where: 'target, row 2', got: '5' },
    ],
    ['a negative class', { target: int64([4], [1, -1, 0, 1]) }, { where: 'target, row 1' }],
    ['too few classes', { target: int64([3], [1, 0, 1]) }, { expected: 'int64 [4]' }],
    ['no target', {}, { got: 'nothing' }],
    ['fractions of classes', { target: float64([4]) }, {}],
    ['too few weights', { target: labels, weight: new Float64Array(3) }, { where: 'weight' }],
  ])('%s', (_, target, detail) =>
    withGradients(scores(5), { loss: 'cross-entropy' }, async (model) => {
      const error = await refused(model.run({ x }, target));
      expect(error).toBeInstanceOf(ResectError);
      expect(error).toMatchObject({ exitCode: 6, detail });
    }),
  );

  test.each<[string, Record<string, TensorData>]>([
    ['no input', {}],
    ['another name', { y: x }],
    ['another type', { x: float32([4, 3]) }],
    ['another length', { x: float64([4, 2]) }],
    ['another rank', { x: float64([3]) }],
    ['fewer values than the shape says', { x: { ...x, dims: [5, 3] } }],
  ])('%s', (_, feeds) =>
    withGradients(scores(5), { loss: 'cross-entropy' }, async (model) => {
      for (const work of [
        model.run(feeds, { target: labels }),
        model.predict(feeds),
        model.rows(feeds),
        model.runSquares(feeds, { target: labels }),
      ])
        expect(await refused(work)).toMatchObject({ exitCode: 6, detail: { where: 'input x' } });
    }),
  );

  test('a frozen batch takes no other', () =>
    withGradients(scores(5, undefined, [2, 3]), { loss: 'cross-entropy' }, async (model) => {
      expect(await refused(model.predict({ x }))).toMatchObject({
        exitCode: 6,
        detail: { expected: 'float64 [2, 3]', got: 'float64 [4, 3]' },
      });
    }));

  test('an op without a gradient, with each parameter once and under its own name', async () => {
    // Two scales that are equal, which an exporter stored once, and are told apart for training.
    const ones = { ...stored('s', [3], 'float32'), rawData: new Uint8Array(12) };
    new Float32Array(ones.rawData.buffer).fill(1);
    const proto = network(
      [
        node('MatMul', ['x', 'w'], ['a']),
        node('LayerNormalization', ['a', 's', 'c'], ['b']),
        node('Hardmax', ['b'], ['p'], {}, { name: 'choice' }),
        node('LayerNormalization', ['p', 's', 'd'], ['q']),
        node('MatMul', ['q', 'v'], ['y']),
      ],
      [
        stored('w', [3, 3], 'float32'),
        ones,
        stored('c', [3], 'float32', 3),
        stored('d', [3], 'float32', 4),
        stored('v', [3, 2], 'float32', 5),
      ],
      { dtype: 'float32' },
    );
    const feeds = { x: float32([4, 3]) };
    const error = await withGradients(proto, { loss: 'squared-norm' }, (model) =>
      refused(model.run(feeds)),
    );
    if (!(error instanceof NoGradientError)) throw error;
    expect(error).toMatchObject({ exitCode: 5, op: 'Hardmax', node: 'choice' });
    expect(error.detail.where).toBe('node choice');
    expect(error.detail.got).toMatch(/^Hardmax has no gradient here; on the way to "w": "w" <- /);
    expect(error.detail.got).toMatch(/ <- Hardmax$/);
    expect(error.detail.hint).toContain('2 of 5 parameters');
    expect([...error.unreachable].sort()).toEqual(['c', 's', 'w']);
    expect([...error.reachable].sort()).toEqual(['d', 'v']);
    const kept = new Set(error.reachable);
    await withGradients(
      proto,
      { loss: 'squared-norm', parameters: ({ name }) => kept.has(name) },
      async (model) => {
        const { gradients: found } = await model.run(feeds);
        expect([...found.keys()].sort()).toEqual(['d', 'v']);
        expect(found.get('v')?.some((g) => g !== 0)).toBe(true);
      },
    );
  });

  test('an output whose shape depends on the data', () =>
    withGradients(
      network(
        [
          node('MatMul', ['x', 'w'], ['z']),
          node('NonZero', ['z'], ['i']),
          node('Cast', ['i'], ['y'], { to: 1 }),
        ],
        [stored('w', [3, 2], 'float32')],
        { dtype: 'float32' },
      ),
      { loss: 'mse' },
      async (model) => {
        const error = await refused(model.run({ x: float32([4, 3]) }, { target: x }));
        expect(error).toMatchObject({
          exitCode: 5,
          message: 'A gradient cannot be computed.',
          detail: { got: expect.stringContaining('depends on the data') },
        });
      },
    ));
});
