import { gradients } from '../../src/autodiff/gradients.js';
import { alternatives, type LossGraph } from '../../src/autodiff/loss-graph.js';
import { Adam } from '../../src/autodiff/optimizer.js';
import { parseModel } from '../../src/onnx/index.js';
import { floats, linear, node, weight } from '../support/protos.js';

/** y [n, 4] = x [n, 8] w; L = Σ (y - t)², shown with y - t. */
const squares = (more: Partial<LossGraph> = {}): LossGraph => ({
  nodes: [
    node('Sub', ['y', 't'], ['own/error']),
    node('Mul', ['own/error', 'own/error'], ['own/square']),
    node('ReduceSum', ['own/square'], ['own/loss'], { keepdims: 0 }),
  ],
  initializers: [],
  inputs: ['t'],
  loss: 'own/loss',
  shown: ['own/error'],
  ...more,
});
const source = () => parseModel(linear());
const tensor = (dims: number[], of: (i: number) => number) => ({
  dtype: 'float32' as const,
  dims,
  data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => of(i)),
});
const feeds = { x: tensor([3, 8], (i) => Math.sin(i)) };
const inputs = { t: tensor([3, 4], (i) => Math.cos(i)) };

test('value, shown values and gradients of a loss that is a piece of graph', async () => {
  const model = await gradients(source(), { loss: squares() });
  const { loss, losses, shown, gradients: g } = await model.run(feeds, { inputs });
  const w = model.values.get('w') as Float32Array;
  const error = Array.from({ length: 12 }, (_, k) => {
    const [row, column] = [Math.floor(k / 4), k % 4];
    let y = 0;
    for (let i = 0; i < 8; i++) y += feeds.x.data[row * 8 + i] * w[i * 4 + column];
    return y - inputs.t.data[k];
  });
  expect(loss).toBeCloseTo(
    error.reduce((sum, e) => sum + e * e, 0),
    4,
  );
  expect(losses).toHaveLength(0);
  for (const [k, e] of error.entries())
    expect(Number(shown['own/error'].data[k])).toBeCloseTo(e, 5);
  for (let at = 0; at < 32; at++) {
    const [i, column] = [Math.floor(at / 4), at % 4];
    let slope = 0;
    for (let row = 0; row < 3; row++)
      slope += 2 * error[row * 4 + column] * feeds.x.data[row * 8 + i];
    expect(g.get('w')?.[at]).toBeCloseTo(slope, 4);
  }
  // Other shapes make another graph.
  const one = { x: tensor([1, 8], Math.sin) };
  const { loss: less } = await model.run(one, { inputs: { t: tensor([1, 4], Math.cos) } });
  expect(less).toBeLessThan(loss);
  await model.release();
});

test('models of one copy share their values', async () => {
  const model = await gradients(source(), { loss: squares() });
  const other = model.with({ loss: 'squared-norm' });
  const before = (await other.run(feeds)).loss;
  const { gradients: g } = await model.run(feeds, { inputs });
  new Adam({ learningRate: 0.1 }).step(model.values, g);
  expect((await other.run(feeds)).loss).not.toBe(before);
  expect(other.values.get('w')).toBe(model.values.get('w'));
  const none = model.with({ parameters: () => false });
  expect(none.values.size).toBe(0);
  await model.release();
  // The other is released by itself.
  expect((await other.run(feeds)).loss).toEqual(expect.any(Number));
  await other.release();
});

test.each<[string, Partial<LossGraph>, object, object]>([
  ['nothing is fed', {}, {}, { exitCode: 6, detail: { where: 'input t', got: 'nothing' } }],
  [
    'another type is fed',
    {},
    { t: { ...inputs.t, dtype: 'float64', data: new Float64Array(12) } },
    { exitCode: 6, detail: { got: 'float64' } },
  ],
  [
    'the loss is no single number',
    { loss: 'own/square' },
    inputs,
    { exitCode: 5, detail: { where: 'value "own/square"', got: '[3, 4]' } },
  ],
  [
    'a value is read that is not there',
    { nodes: [node('Sub', ['z', 't'], ['own/loss'])], shown: [] },
    inputs,
    { exitCode: 5 },
  ],
])('refused: %s', async (_, more, fed, error) => {
  const model = await gradients(source(), { loss: squares(more) });
  await expect(model.run(feeds, { inputs: fed as typeof inputs })).rejects.toMatchObject(error);
  await model.release();
});

test('an optimizer goes on from its state', async () => {
  const gradient = (step: number) =>
    new Map([['w', Float32Array.from({ length: 5 }, (_, i) => Math.sin(step + i))]]);
  const run = (optimizer: Adam, values: Map<string, Float32Array>, steps: number[]) => {
    for (const step of steps) optimizer.step(values, gradient(step));
  };
  const start = () => new Map([['w', new Float32Array(5)]]);
  const options = { learningRate: 0.1, weightDecay: 0.01 };
  const whole = start();
  run(new Adam(options), whole, [0, 1, 2, 3]);
  const parts = start();
  const first = new Adam(options);
  run(first, parts, [0, 1]);
  run(new Adam(options, structuredClone(first.state)), parts, [2, 3]);
  expect(parts).toEqual(whole);
});

test('a constant of a loss is what it is', async () => {
  const loss = squares({
    nodes: [
      node('Sub', ['y', 'c'], ['own/error']),
      node('Mul', ['own/error', 'own/error'], ['own/square']),
      node('ReduceSum', ['own/square'], ['own/loss'], { keepdims: 0 }),
    ],
    initializers: [floats('c', [4], Float32Array.of(1, 2, 3, 4))],
    inputs: [],
    shown: [],
  });
  const model = await gradients(source(), { loss });
  const own = await model.run(feeds);
  const fed = model.with({ loss: squares() });
  const same = await fed.run(feeds, { inputs: { t: tensor([3, 4], (i) => 1 + (i % 4)) } });
  expect(own.loss).toBeCloseTo(same.loss, 5);
  await model.release();
  await fed.release();
});

test('losses that take turns are each what it is alone', async () => {
  const cubes: LossGraph = {
    nodes: [
      node('Mul', ['y', 'y'], ['other/square']),
      node('Mul', ['other/square', 'y'], ['other/cube']),
      node('ReduceSum', ['other/cube'], ['other/loss'], { keepdims: 0 }),
    ],
    initializers: [],
    inputs: [],
    loss: 'other/loss',
    shown: ['other/cube'],
  };
  const both = alternatives({ squares: squares(), cubes });
  const model = await gradients(source(), { loss: both });
  for (const [name, loss, fed] of [
    ['squares', squares(), inputs],
    ['cubes', cubes, {}],
  ] as const) {
    const alone = model.with({ loss });
    const want = await alone.run(feeds, { inputs: fed });
    const got = await model.run(feeds, { inputs: { ...inputs, ...both.take(name) } });
    expect(got.loss).toBe(want.loss);
    expect(got.gradients).toEqual(want.gradients);
    expect(Object.keys(got.shown)).toEqual(['own/error', 'other/cube']);
    await alone.release();
  }
  await model.release();
});

test('no two parameters have one array of gradients', async () => {
  const sum = parseModel(
    linear({
      node: [
        node('Add', ['p', 'q'], ['pq']),
        node('MatMul', ['x', 'w'], ['xw']),
        node('Add', ['xw', 'pq'], ['y']),
      ],
      initializer: [weight('w', [8, 4]), weight('p', [4]), weight('q', [4])],
    }),
  );
  const model = await gradients(sum, { loss: squares() });
  const { gradients: g } = await model.run(feeds, { inputs });
  expect(g.get('p')).toEqual(g.get('q'));
  expect(g.get('p')).not.toBe(g.get('q'));
  await model.release();
});
