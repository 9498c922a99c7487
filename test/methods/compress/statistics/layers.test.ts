import { Constants } from '../../../../src/graph/constants.js';
import { Graph } from '../../../../src/graph/graph.js';
import { readLayer, storedWeights } from '../../../../src/methods/compress/statistics/layers.js';
import {
  type Model,
  type NodeProto,
  readTensorFloat32,
  type TensorProto,
} from '../../../../src/onnx/index.js';
import { floats, node } from '../../../support/protos.js';
import { network, parameter, walk } from './support.js';

const read = (source: Model, at = 0) => {
  const graph = new Graph(source.proto);
  const constants = new Constants(graph);
  return readLayer({ model: source, graph, constants }, source.proto.graph!.node[at]);
};

describe('filters, and back to storage', () => {
  const forms: [string, number[], NodeProto, TensorProto][] = [
    [
      'Conv',
      [6, 4, 4],
      node('Conv', ['x', 'w'], ['y'], { group: 2 }),
      parameter('w', [4, 3, 2, 3], 1),
    ],
    [
      'ConvTranspose',
      [6, 4, 4],
      node('ConvTranspose', ['x', 'w'], ['y'], { group: 2, strides: [2, 2] }),
      parameter('w', [6, 2, 2, 2], 1),
    ],
    ['Gemm', [6], node('Gemm', ['x', 'w'], ['y']), parameter('w', [6, 4], 1)],
    [
      'Gemm with transB',
      [6],
      node('Gemm', ['x', 'w'], ['y'], { transB: 1 }),
      parameter('w', [4, 6], 1),
    ],
    ['MatMul', [6], node('MatMul', ['x', 'w'], ['y']), parameter('w', [6, 4], 1)],
  ];
  test.each(forms)('%s', async (_, dims, op, weight) => {
    const source = network(dims, [op], [weight]);
    const { layer, storage } = await read(source);
    expect([layer.filters.outputs, layer.filters.inputs]).toEqual([4, 6]);
    const stored = storedWeights(storage, layer.filters);
    expect(stored.dims).toEqual(weight.dims);
    expect(Array.from(stored.values)).toEqual(Array.from(await readTensorFloat32(source, weight)));
  });

  test('[outputs, inputs, taps] of a transposed convolution: a mean over positions', async () => {
    const op = node('ConvTranspose', ['x', 'w'], ['y'], { strides: [2] });
    const w = floats('w', [2, 1, 2], Float32Array.of(1, 2, 3, 4));
    const { layer } = await read(network([2, 4], [op], [w]));
    expect(layer.filters).toMatchObject({ outputs: 1, inputs: 2, kernel: [2], groups: 1 });
    expect(Array.from(layer.filters.weights)).toEqual([0.5, 1, 1.5, 2]);
  });

  test('alpha and beta of a Gemm', async () => {
    const op = node('Gemm', ['x', 'w', 'c'], ['y']);
    op.attribute.push({ name: 'alpha', type: 1, f: 2 }, { name: 'beta', type: 1, f: 0.5 });
    const source = network(
      [2],
      [op],
      [parameter('w', [2, 3], 1), floats('c', [1], Float32Array.of(4))],
    );
    const { layer, storage } = await read(source);
    expect(Array.from(layer.bias!)).toEqual([2, 2, 2]);
    const stored = await readTensorFloat32(source, source.proto.graph!.initializer[0]);
    expect(layer.filters.weights[1]).toBe(2 * stored[3]);
    expect(storedWeights(storage, layer.filters).values[3]).toBe(stored[3]);
  });
});

test.each([
  ['channels first', [] as NodeProto[], [5, 2, 3], 'p'],
  ['channels last', [node('Transpose', ['p'], ['t'], { perm: [0, 2, 3, 1] })], [5, 2, 3], 't'],
])(
  'positions flattened behind or in front of channels are taps: %s',
  async (_, before, dims, from) => {
    const weight = parameter('w', [4, 30], 1);
    const source = network(
      dims,
      [
        node('MaxPool', ['x'], ['p'], { kernel_shape: [1, 1] }),
        ...before,
        node('Flatten', [from], ['f']),
        node('Gemm', ['f', 'w'], ['y'], { transB: 1 }),
      ],
      [weight],
    );
    const { layer, storage, input } = (await walk(source)).get('w')!;
    expect(input.original.mean).toHaveLength(5);
    expect(layer.filters).toMatchObject({ outputs: 4, inputs: 5, kernel: [2, 3] });
    const stored = await readTensorFloat32(source, weight);
    // Output 1, channel 2, position 3.
    const at = before.length ? 30 + 3 * 5 + 2 : 30 + 2 * 6 + 3;
    expect(layer.filters.weights[30 + 2 * 6 + 3]).toBe(stored[at]);
    expect(Array.from(storedWeights(storage, layer.filters).values)).toEqual(Array.from(stored));
  },
);

describe('what belongs to a layer', () => {
  test('the Add behind a MatMul is its bias, and a normalization follows', async () => {
    const source = network(
      [3],
      [
        node('MatMul', ['x', 'w'], ['a']),
        node('Add', ['c', 'a'], ['b']),
        node('BatchNormalization', ['b', 'g', 'h', 'm', 'v'], ['y']),
      ],
      [
        parameter('w', [3, 2], 1),
        floats('c', [2], Float32Array.of(1, 2)),
        ...['g', 'h', 'm', 'v'].map((name) => floats(name, [2], Float32Array.of(1, 2))),
      ],
    );
    const layer = await read(source);
    expect(layer.bias).toEqual({ node: source.proto.graph!.node[1], input: 0 });
    expect(Array.from(layer.layer.bias!)).toEqual([1, 2]);
    expect(layer.norm).toBe(source.proto.graph!.node[2]);
    expect(layer.output).toBe('y');
  });

  test('not a normalization when something else reads the convolution', async () => {
    const source = network(
      [3, 2, 2],
      [
        node('Conv', ['x', 'w'], ['a']),
        node('BatchNormalization', ['a', 'g', 'g', 'g', 'g'], ['b']),
        node('Add', ['a', 'b'], ['y']),
      ],
      [parameter('w', [2, 3, 1, 1], 1), floats('g', [2], Float32Array.of(1, 2))],
    );
    const layer = await read(source);
    expect(layer.norm).toBeUndefined();
    expect(layer.output).toBe('a');
  });
});

describe('parameters that no network has', () => {
  test('a weight that is not finite', async () => {
    const w = floats('w', [2, 1, 1, 1], Float32Array.of(1, Number.NaN));
    const source = network([1, 2, 2], [node('Conv', ['x', 'w'], ['y'], {}, { name: 'c' })], [w]);
    await expect(walk(source)).rejects.toMatchObject({
      exitCode: 5,
      detail: { where: 'layer c', got: 'NaN at element 1' },
    });
  });

  test('a negative variance', async () => {
    const one = floats('g', [2], Float32Array.of(1, 1));
    const source = network(
      [1, 2, 2],
      [
        node('Conv', ['x', 'w'], ['a']),
        node('BatchNormalization', ['a', 'g', 'g', 'g', 'v'], ['y']),
      ],
      [parameter('w', [2, 1, 1, 1], 1), one, floats('v', [2], Float32Array.of(1, -1))],
    );
    await expect(walk(source)).rejects.toMatchObject({ exitCode: 5 });
  });
});
