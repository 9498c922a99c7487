import type { Dataset } from '../../../src/data/index.js';
import {
  encodeModel,
  type GraphProto,
  type Model,
  type ModelProto,
  type NodeProto,
  parseModel,
  serializeModel,
  type TensorProto,
} from '../../../src/onnx/index.js';
import { noise, withFloats } from '../../graph/helpers.js';
import { floats, graph, ints, model, node, value, weight } from '../../support/protos.js';
import { floatTensor, runOnce } from '../../support/run.js';
import { sparsifyInMemory } from './helpers.js';

const samples = 6;
const microsoft = { domain: 'com.microsoft' };
const imports = { opsetImport: [{ version: 17 }, { domain: 'com.microsoft', version: 1 }] };

/** Samples with a mean that is not zero, so that pruning moves the output's. */
const sample = (dims: number[], i: number): Float32Array =>
  noise(
    dims.reduce((a, b) => a * b, 1),
    i + 1,
  ).map((v, k) => v + 0.5 + (k % 3) / 4);

const dataset = (dims: number[]): Dataset => ({
  path: 'samples',
  task: 'none',
  length: samples,
  files: [],
  example: async (i) => ({ inputs: { x: { dtype: 'float32', dims, data: sample(dims, i) } } }),
});

const network = (
  nodes: NodeProto[],
  initializer: TensorProto[],
  dims: number[],
  more: Partial<GraphProto> = {},
): Model =>
  parseModel(
    encodeModel(
      model(
        { input: [value('x', dims)], initializer, node: nodes, output: [{ name: 'y' }], ...more },
        imports,
      ),
    ),
  );

const channels = 6;

/** Mean of `y` over samples and positions, for each output channel on `axis`. */
async function meanOutput(m: Model, dims: number[], axis: number): Promise<number[]> {
  const { proto } = parseModel(await serializeModel(m));
  const sums = new Array<number>(channels).fill(0);
  let count = 0;
  for (let i = 0; i < samples; i++) {
    const { y } = await runOnce(proto, { x: floatTensor(dims, sample(dims, i)) });
    const inner = y.dims.slice(axis + 1).reduce((a, b) => a * b, 1);
    for (const [k, v] of Array.from(y.data, Number).entries())
      sums[Math.floor(k / inner) % channels] += v;
    count += y.data.length / channels;
  }
  return sums.map((s) => s / count);
}

const prune = (m: Model, dims: number[], biasCorrect: boolean) =>
  sparsifyInMemory(m, {
    parameters: { sparsity: 0.5, init: 'magnitude', refine: 'none', biasCorrect },
    dataset: dataset(dims),
  });

const apart = (a: number[], b: number[]) => Math.max(...a.map((v, i) => Math.abs(v - b[i])));

/** Pruning moves the mean output, and the correction moves it back. */
async function expectMeanRestored(make: () => Model, dims: number[], axis: number) {
  const dense = await meanOutput(make(), dims, axis);
  const [plain, corrected] = [make(), make()];
  await prune(plain, dims, false);
  const { layers } = await prune(corrected, dims, true);
  expect(layers.flatMap(({ notes = [] }) => notes)).toEqual([]);
  expect(apart(await meanOutput(plain, dims, axis), dense)).toBeGreaterThan(0.05);
  expect(apart(await meanOutput(corrected, dims, axis), dense)).toBeLessThan(1e-5);
  return corrected;
}

const bias = (shape = [channels]) => floats('b', shape, noise(channels, 9));
const gemm = (inputs: string[], attributes = {}, factors = {}) =>
  withFloats(node('Gemm', inputs, ['y'], attributes), factors);
const tokens = [5, 8];

describe('bias correction restores the mean output', () => {
  test('convolution without a bias', async () => {
    const make = () =>
      network(
        [node('Conv', ['x', 'w'], ['y'], { pads: [1, 1, 1, 1] })],
        [weight('w', [channels, 2, 3, 3])],
        [1, 2, 6, 6],
      );
    const m = await expectMeanRestored(make, [1, 2, 6, 6], 1);
    expect(m.proto.graph!.node[0].input.length).toBe(3);
  });

  test('convolution with a bias, strides, dilations and groups', () =>
    expectMeanRestored(
      () =>
        network(
          [node('Conv', ['x', 'w', 'b'], ['y'], { strides: [2, 1], dilations: [1, 2], group: 2 })],
          [weight('w', [channels, 2, 3, 3]), bias()],
          [1, 4, 7, 7],
        ),
      [1, 4, 7, 7],
      1,
    ));

  test.each([
    [
      'Gemm with a bias',
      () => network([gemm(['x', 'w', 'b'])], [weight('w', [8, channels]), bias()], tokens),
    ],
    [
      'Gemm with alpha and beta',
      () =>
        network(
          [gemm(['x', 'w', 'b'], { transB: 1 }, { alpha: 2, beta: 0.5 })],
          [weight('w', [channels, 8]), bias()],
          tokens,
        ),
    ],
    [
      'Gemm with a bias of rank 2',
      () =>
        network([gemm(['x', 'w', 'b'])], [weight('w', [8, channels]), bias([1, channels])], tokens),
    ],
    [
      'Gemm without a bias',
      () => network([gemm(['x', 'w'], {}, { alpha: -1 })], [weight('w', [8, channels])], tokens),
    ],
    [
      'MatMul and Add',
      () =>
        network(
          [node('MatMul', ['x', 'w'], ['h']), node('Add', ['h', 'b'], ['y'])],
          [weight('w', [8, channels]), bias()],
          tokens,
        ),
    ],
    [
      'Add and MatMul, bias first',
      () =>
        network(
          [node('MatMul', ['x', 'w'], ['h']), node('Add', ['b', 'h'], ['y'])],
          [weight('w', [8, channels]), bias()],
          tokens,
        ),
    ],
    [
      'MatMul without Add',
      () => network([node('MatMul', ['x', 'w'], ['y'])], [weight('w', [8, channels])], tokens),
    ],
    [
      'MatMul and the Add of an activation',
      () =>
        network(
          [
            node('MatMul', ['x', 'w'], ['h']),
            node('ReduceSum', ['x', 'axes'], ['r']),
            node('Add', ['h', 'r'], ['y']),
          ],
          [weight('w', [8, channels]), ints('axes', 1)],
          tokens,
        ),
    ],
    [
      'FusedMatMul with alpha',
      () =>
        network(
          [withFloats(node('FusedMatMul', ['x', 'w'], ['y'], {}, microsoft), { alpha: 3 })],
          [weight('w', [8, channels])],
          tokens,
        ),
    ],
  ])('%s', (_, make) => expectMeanRestored(make, tokens, 1));

  test.each([
    ['MatMul with the constant on the left', node('MatMul', ['w', 'x'], ['y'])],
    ['Gemm with the constant on the left', gemm(['w', 'x'])],
  ])('%s', (_, n) =>
    expectMeanRestored(() => network([n], [weight('w', [channels, 8])], [8, 5]), [8, 5], 0),
  );

  test('a layer whose output several nodes read', () =>
    expectMeanRestored(
      () =>
        network(
          [
            node('MatMul', ['x', 'w'], ['h']),
            node('Relu', ['h'], ['r']),
            node('Add', ['h', 'b'], ['y']),
          ],
          [weight('w', [8, channels]), bias()],
          tokens,
          { output: [{ name: 'y' }, { name: 'r' }] },
        ),
      tokens,
      1,
    ));

  test('a layer in a branch', () =>
    expectMeanRestored(
      () =>
        network(
          [
            node('Constant', [], ['c'], {
              value: { dims: [], dataType: 9, rawData: Uint8Array.of(1) },
            }),
            node('If', ['c'], ['y'], {
              then_branch: graph({
                initializer: [weight('w', [8, channels])],
                node: [node('MatMul', ['x', 'w'], ['t'])],
                output: [{ name: 't' }],
              }),
              else_branch: graph({
                initializer: [weight('e', [5, channels])],
                output: [{ name: 'e' }],
              }),
            }),
          ],
          [],
          tokens,
        ),
      tokens,
      1,
    ));

  test('two layers, one after the other', async () => {
    const make = () =>
      network(
        [node('MatMul', ['x', 'v'], ['h']), node('MatMul', ['h', 'w'], ['y'])],
        [weight('v', [8, channels]), weight('w', [channels, channels])],
        tokens,
      );
    await expectMeanRestored(make, tokens, 1);
  });

  test('weights in half precision, cast where they are used', () => {
    const half = (shape: number[]): TensorProto => ({
      ...weight('q', shape),
      dataType: 10,
      rawData: new Uint8Array(
        Uint16Array.from(
          { length: shape[0] * shape[1] },
          (_, i) => 0x3000 + ((i * 7919) % 0x0c00) + (i % 2) * 0x8000,
        ).buffer,
      ),
    });
    return expectMeanRestored(
      () =>
        network(
          [node('Cast', ['q'], ['w'], { to: 1 }), node('MatMul', ['x', 'w'], ['y'])],
          [half([8, channels])],
          tokens,
        ),
      tokens,
      1,
    );
  });

  test('quantized weights', () =>
    expectMeanRestored(
      () =>
        network(
          [node('DequantizeLinear', ['q', 's'], ['w']), node('MatMul', ['x', 'w'], ['y'])],
          [
            {
              dims: [8, channels],
              dataType: 3,
              name: 'q',
              rawData: new Uint8Array(Int8Array.from(noise(8 * channels), (v) => v * 100).buffer),
            },
            floats('s', [], Float32Array.of(0.01)),
          ],
          tokens,
        ),
      tokens,
      1,
    ));
});

describe('a bias that cannot be corrected', () => {
  const notesOf = async (m: Model, dims = tokens) => {
    const { layers } = await prune(m, dims, true);
    return layers.flatMap(({ notes = [] }) => notes).join();
  };

  test('is shared with another layer', async () => {
    const m = network(
      [gemm(['x', 'v', 'b']), node('Gemm', ['x', 'w', 'b'], ['z'])],
      [weight('v', [8, channels]), weight('w', [8, channels]), bias()],
      tokens,
      { output: [{ name: 'y' }, { name: 'z' }] },
    );
    expect(await notesOf(m)).toMatch(/shared with another node/);
  });

  test('belongs to a layer whose weight is shared', async () => {
    const m = network(
      [node('MatMul', ['x', 'w'], ['h']), node('MatMul', ['h', 'w'], ['y'])],
      [weight('w', [8, 8])],
      tokens,
    );
    expect(await notesOf(m)).toMatch(/weight is shared/);
  });

  test('is computed, of another length, or switched off', async () => {
    const computed = network(
      [node('Mul', ['b', 'b'], ['c']), gemm(['x', 'w', 'c'])],
      [weight('w', [8, channels]), bias()],
      tokens,
    );
    expect(await notesOf(computed)).toMatch(/not a stored tensor/);
    const scalar = network(
      [gemm(['x', 'w', 'c'])],
      [weight('w', [8, channels]), floats('c', [1], noise(1))],
      tokens,
    );
    expect(await notesOf(scalar)).toMatch(/another length/);
    const off = network(
      [gemm(['x', 'w', 'b'], {}, { beta: 0 })],
      [weight('w', [8, channels]), bias()],
      tokens,
    );
    expect(await notesOf(off)).toMatch(/switched off/);
  });

  test('is none, in a local function', async () => {
    const m: ModelProto = {
      ...model(
        {
          input: [value('x', tokens)],
          node: [node('F', ['x'], ['y'], {}, { domain: 'test' })],
          output: [{ name: 'y' }],
        },
        { opsetImport: [{ version: 17 }, { domain: 'test', version: 1 }] },
      ),
      functions: [
        {
          domain: 'test',
          name: 'F',
          input: ['x'],
          output: ['y'],
          attribute: [],
          opsetImport: [{ version: 17 }],
          node: [
            node('Constant', [], ['w'], { value: weight('', [8, channels]) }),
            node('MatMul', ['x', 'w'], ['y']),
          ],
        },
      ],
    };
    expect(await notesOf(parseModel(encodeModel(m)))).toMatch(/local function/);
  });

  test('is that of packed attention', async () => {
    const m = network(
      [node('Attention', ['x', 'w', 'b'], ['y'], { num_heads: 2 }, microsoft)],
      [weight('w', [8, 24]), floats('b', [24], noise(24))],
      [1, 5, 8],
    );
    const before = await runOnce(m.proto, { x: floatTensor([1, 5, 8], sample([5, 8], 0)) });
    const { layers } = await prune(m, [5, 8], true);
    const after = await runOnce(parseModel(await serializeModel(m)).proto, {
      x: floatTensor([1, 5, 8], sample([5, 8], 0)),
    });
    expect(after.y.dims).toEqual(before.y.dims);
    expect(layers[0].status).toBe('changed');
  });
});

test('a corrected model on disk is read again with the same bias', async () => {
  const make = () =>
    network([node('MatMul', ['x', 'w'], ['y'])], [weight('w', [8, channels])], tokens);
  const m = make();
  await prune(m, tokens, true);
  const again = parseModel(await serializeModel(m));
  expect(again.proto.graph!.node.map(({ opType }) => opType)).toEqual(['MatMul', 'Add']);
  expect(again.proto.graph!.output.map(({ name }) => name)).toEqual(['y']);
});
