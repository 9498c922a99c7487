import { Graph } from '../../src/graph/graph.js';
import { findLinearLayers } from '../../src/graph/linear-layers.js';
import { readMatrix } from '../../src/graph/weight-matrix.js';
import {
  dtypeCode,
  encodeModel,
  type ModelProto,
  makeTensor,
  type NodeProto,
  parseModel,
  readModel,
  type TensorProto,
} from '../../src/onnx/index.js';
import { inRepository } from '../support/cli.js';
import { floats, graph, ints, model, node, value, weight } from '../support/protos.js';
import { runOnce } from '../support/run.js';
import { layersOf, noiseTensor, withFloats } from './helpers.js';

const microsoft = { domain: 'com.microsoft' };
const both = { opsetImport: [{ version: 17 }, { domain: 'com.microsoft', version: 1 }] };

/** `nodes` from the input `x` and the weights to the output `y`. */
const network = (
  nodes: NodeProto[],
  initializer: TensorProto[],
  dims: (number | string)[] = ['n', 8],
): ModelProto =>
  model({ input: [value('x', dims)], initializer, node: nodes, output: [{ name: 'y' }] }, both);

const only = (m: ModelProto) => {
  const layers = layersOf(m);
  expect(layers.length).toBe(1);
  return layers[0];
};

describe('a product is described so that y = alpha · x · Wᵀ', () => {
  const gemm = (attributes: Record<string, number>, alpha = 1) =>
    withFloats(node('Gemm', ['x', 'w'], ['y'], attributes), { alpha });
  const fused = (inputs: string[], attributes: Record<string, number>, alpha = 1) =>
    withFloats(node('FusedMatMul', inputs, ['y'], attributes, microsoft), { alpha });
  const left = (attributes: Record<string, number>, alpha = 1) =>
    withFloats(node('Gemm', ['w', 'x'], ['y'], attributes), { alpha });

  // Shapes: 8 features, 5 outputs, 3 samples.
  const forms: [string, NodeProto, number[], number[]][] = [
    ['MatMul', node('MatMul', ['x', 'w'], ['y']), [3, 8], [8, 5]],
    ['MatMul, constant on the left', node('MatMul', ['w', 'x'], ['y']), [8, 3], [5, 8]],
    ['Gemm', gemm({}), [3, 8], [8, 5]],
    ['Gemm with transB', gemm({ transB: 1 }), [3, 8], [5, 8]],
    ['Gemm with transA', gemm({ transA: 1 }), [8, 3], [8, 5]],
    ['Gemm with transA, transB and alpha', gemm({ transA: 1, transB: 1 }, 0.5), [8, 3], [5, 8]],
    ['Gemm, constant on the left', left({}, 2), [8, 3], [5, 8]],
    ['Gemm, constant on the left, transA', left({ transA: 1 }), [8, 3], [8, 5]],
    ['Gemm, constant on the left, transB', left({ transB: 1 }), [3, 8], [5, 8]],
    ['FusedMatMul', fused(['x', 'w'], {}, -1.5), [3, 8], [8, 5]],
    ['FusedMatMul with transB', fused(['x', 'w'], { transB: 1 }), [3, 8], [5, 8]],
    ['FusedMatMul with transA', fused(['x', 'w'], { transA: 1 }, 3), [8, 3], [8, 5]],
    [
      'FusedMatMul, constant on the left',
      fused(['w', 'x'], { transA: 1, transB: 1 }, 2),
      [3, 8],
      [8, 5],
    ],
  ];

  test.each(forms)('%s', async (_, n, xDims, wDims) => {
    const m = network([n], [weight('w', wDims)], xDims);
    const layer = only(m);
    expect(layer).toMatchObject({
      input: 'x',
      node: n,
      isHead: false,
      weight: { rows: 5, cols: 8, groups: 1 },
    });
    expect(layer.skip).toBeUndefined();
    const w = await readMatrix(parseModel(encodeModel(m)), layer.weight!);
    const x = noiseTensor(xDims);
    const { y } = await runOnce(m, { x });
    const features = layer.layout?.kind === 'axis' ? layer.layout.axis : 0;
    const at = (s: number, f: number) => Number(x.data[features === -1 ? s * 8 + f : f * 3 + s]);
    const onTheLeft = n.input[0] === 'w';
    for (let s = 0; s < 3; s++)
      for (let r = 0; r < 5; r++) {
        let sum = 0;
        for (let f = 0; f < 8; f++) sum += at(s, f) * w[r * 8 + f];
        expect(y.data[onTheLeft ? r * 3 + s : s * 5 + r]).toBeCloseTo(layer.alpha * sum, 5);
      }
  });

  test('FusedGemm', () => {
    const n = withFloats(node('FusedGemm', ['x', 'w', 'b'], ['y'], { transB: 1 }, microsoft), {
      alpha: 2,
    });
    expect(only(network([n], [weight('w', [5, 8]), weight('b', [5])]))).toMatchObject({
      op: 'com.microsoft.FusedGemm',
      alpha: 2,
      layout: { kind: 'axis', axis: -1 },
      weight: { rows: 5, cols: 8 },
    });
  });

  test('Attention, with q, k and v in one weight', () => {
    const n = node('Attention', ['x', 'w', 'b'], ['y'], { num_heads: 2 }, microsoft);
    expect(
      only(network([n], [weight('w', [8, 24]), weight('b', [24])], ['n', 's', 8])),
    ).toMatchObject({
      op: 'com.microsoft.Attention',
      weight: { rows: 24, cols: 8 },
      layout: { kind: 'axis', axis: -1 },
    });
  });
});

describe('convolutions', () => {
  const conv = (attributes: Record<string, number | number[] | string>, dims: number[]) =>
    only(
      network(
        [node('Conv', ['x', 'w'], ['y'], attributes)],
        [weight('w', dims)],
        ['n', 'c', 'h', 'w'],
      ),
    );

  test('rows are output channels, columns input channels and taps', () => {
    expect(conv({ strides: [2, 2] }, [16, 3, 5, 4])).toMatchObject({
      weight: { rows: 16, cols: 60, groups: 1 },
      layout: { kind: 'patches', kernel: [5, 4], channels: 3 },
    });
  });

  test('groups', () => {
    expect(conv({ group: 4 }, [16, 3, 3, 3])).toMatchObject({
      weight: { rows: 16, cols: 27, groups: 4 },
      layout: { channels: 12 },
    });
  });

  test('one dimension, three dimensions', () => {
    expect(conv({}, [4, 3, 7])).toMatchObject({
      weight: { rows: 4, cols: 21 },
      layout: { kernel: [7] },
    });
    expect(conv({}, [4, 3, 2, 3, 4])).toMatchObject({
      weight: { cols: 72 },
      layout: { kernel: [2, 3, 4] },
    });
  });

  test('FusedConv', () => {
    const n = node('FusedConv', ['x', 'w'], ['y'], { activation: 'Relu' }, microsoft);
    expect(only(network([n], [weight('w', [4, 3, 3, 3])]))).toMatchObject({
      op: 'com.microsoft.FusedConv',
      weight: { cols: 27 },
    });
  });

  test('a kernel of one input channel in one group is no depthwise convolution', () => {
    expect(conv({}, [16, 1, 3, 3]).skip).toBeUndefined();
  });

  test('refused: depthwise, impossible groups, weights of too low a rank', () => {
    expect(conv({ group: 16 }, [16, 1, 3, 3]).skip).toMatch(/depthwise/);
    expect(conv({ group: 3 }, [16, 2, 3, 3]).skip).toMatch(/groups do not divide/);
    expect(conv({ group: 0 }, [16, 2, 3, 3]).skip).toMatch(/groups do not divide/);
    expect(conv({}, [16, 2]).skip).toMatch(/rank below 3/);
  });
});

describe('what is left alone, and why', () => {
  const w = weight('w', [8, 8]);
  const multiply = node('MatMul', ['x', 'w'], ['h'], {}, { name: 'layer' });
  const skipOf = (m: ModelProto, name = 'layer') => layersOf(m).find((l) => l.name === name)?.skip;

  test('a weight that Gather reads, too', () => {
    const m = network(
      [multiply, node('Gather', ['w', 'i'], ['g']), node('Concat', ['h', 'g'], ['y'], { axis: 0 })],
      [w, ints('i', 1)],
    );
    expect(skipOf(m)).toBe('weight is also read by Gather');
    expect(layersOf(m)[0].isHead).toBe(true);
  });

  test('an embedding that is read transposed as the head', () => {
    const m = network(
      [
        node('Gather', ['table', 'ids'], ['h']),
        node('Transpose', ['table'], ['turned']),
        node('MatMul', ['h', 'turned'], ['y'], {}, { name: 'layer' }),
      ],
      [weight('table', [32, 8]), ints('ids', 1, 2)],
    );
    expect(skipOf(m)).toMatch(/Gather/);
    expect(layersOf(m)[0].isHead).toBe(true);
  });

  test('a weight that something reads at a depth', () => {
    const m = network(
      [
        multiply,
        node('If', ['c'], ['y'], {
          then_branch: graph({ node: [node('Add', ['h', 'w'], ['a'])], output: [{ name: 'a' }] }),
          else_branch: graph({ node: [node('Neg', ['h'], ['b'])], output: [{ name: 'b' }] }),
        }),
      ],
      [w, makeTensor({ name: 'c', dtype: 'bool', shape: [], bytes: Uint8Array.of(1) })],
    );
    expect(skipOf(m)).toBe('weight is also read by Add');
  });

  test('a weight in two orientations', () => {
    const m = network([multiply, node('Gemm', ['h', 'w'], ['y'], { transB: 1 })], [w]);
    expect(layersOf(m).map(({ skip }) => skip)).toEqual(
      Array(2).fill('weight is shared in two orientations'),
    );
  });

  test('not a weight that is shared in one orientation', () => {
    const m = network(
      [multiply, node('Identity', ['w'], ['same']), node('MatMul', ['h', 'same'], ['y'])],
      [w],
    );
    expect(layersOf(m).map(({ skip }) => skip)).toEqual([undefined, undefined]);
  });

  test('a weight that is an output', () => {
    const m = network([multiply], [w]);
    m.graph!.output = [{ name: 'h' }, { name: 'w' }];
    expect(skipOf(m)).toBe('weight is an output of the model');
    m.graph!.node.push(node('Transpose', ['w'], ['t']));
    m.graph!.output = [{ name: 'h' }, { name: 't' }];
    expect(skipOf(m)).toBe('weight is an output of the model');
  });

  test('batches of matrices, and vectors', () => {
    expect(only(network([node('MatMul', ['x', 'w'], ['y'])], [weight('w', [2, 8, 8])])).skip).toBe(
      'batch of weight matrices',
    );
    expect(only(network([node('MatMul', ['x', 'w'], ['y'])], [weight('w', [8])])).skip).toBe(
      'weight is a vector',
    );
  });

  test('weights that are computed', () => {
    const m = network(
      [node('Mul', ['w', 'w'], ['square']), node('MatMul', ['x', 'square'], ['y'])],
      [w],
    );
    expect(only(m).skip).toBe('weight computed by Mul from constants');
  });

  test('weights of other types', () => {
    const integers = network(
      [node('MatMul', ['x', 'w'], ['y'])],
      [makeTensor({ name: 'w', dtype: 'int32', shape: [8, 2], bytes: new Uint8Array(64) })],
    );
    expect(only(integers).skip).toBe('int32 weight');
    const packed = network(
      [node('DequantizeLinear', ['q', 's'], ['w']), node('MatMul', ['x', 'w'], ['y'])],
      [
        makeTensor({ name: 'q', dtype: 'int4', shape: [8, 2], bytes: new Uint8Array(8) }),
        floats('s', [], Float32Array.of(1)),
      ],
    );
    expect(only(packed).skip).toBe('int4 quantized storage');
    expect(only(network([node('MatMul', ['x', 'w'], ['y'])], [weight('w', [8, 0])])).skip).toBe(
      'empty weight',
    );
  });

  test('a sparse initializer', () => {
    const m = network([node('MatMul', ['x', 'w'], ['y'])], []);
    m.graph!.sparseInitializer = [
      { values: weight('w', [2]), indices: ints('', 0, 9), dims: [8, 8] },
    ];
    expect(only(m).skip).toBe('weight stored as a sparse tensor');
  });

  const q = (name: string, shape: number[]) =>
    makeTensor({
      name,
      dtype: 'uint8',
      shape,
      bytes: new Uint8Array(shape.reduce((a, b) => a * b, 1)),
    });
  const one = floats('one', [], Float32Array.of(1));
  const zero = q('zero', []);
  const refusals: [string, NodeProto, TensorProto[], RegExp][] = [
    [
      'ConvTranspose',
      node('ConvTranspose', ['x', 'w'], ['y']),
      [weight('w', [3, 4, 2, 2])],
      /transposed convolution/,
    ],
    [
      'LSTM',
      node('LSTM', ['x', 'w', 'r'], ['y'], { hidden_size: 2 }),
      [weight('w', [1, 8, 8]), weight('r', [1, 8, 2])],
      /packed gates/,
    ],
    [
      'GRU',
      node('GRU', ['x', 'w', 'r'], ['y'], { hidden_size: 2 }),
      [weight('w', [1, 6, 8]), weight('r', [1, 6, 2])],
      /packed gates/,
    ],
    [
      'RNN',
      node('RNN', ['x', 'w', 'r'], ['y'], { hidden_size: 2 }),
      [weight('w', [1, 2, 8]), weight('r', [1, 2, 2])],
      /recurrent/,
    ],
    ['Einsum', node('Einsum', ['x', 'w'], ['y'], { equation: 'bi,io->bo' }), [w], /Einsum/],
    [
      'Einsum, weight first',
      node('Einsum', ['w', 'x'], ['y'], { equation: 'oi,bi->bo' }),
      [w],
      /Einsum/,
    ],
    [
      'QLinearMatMul',
      node('QLinearMatMul', ['x', 'one', 'zero', 'w', 'one', 'zero', 'one', 'zero'], ['y']),
      [q('w', [8, 8]), one, zero],
      /integer/,
    ],
    [
      'QLinearConv',
      node('QLinearConv', ['x', 'one', 'zero', 'w', 'one', 'zero', 'one', 'zero'], ['y']),
      [q('w', [4, 3, 3, 3]), one, zero],
      /integer/,
    ],
    ['MatMulInteger', node('MatMulInteger', ['x', 'w'], ['y']), [q('w', [8, 8])], /integer/],
    ['ConvInteger', node('ConvInteger', ['x', 'w'], ['y']), [q('w', [4, 3, 3, 3])], /integer/],
    [
      'MatMulNBits',
      node(
        'MatMulNBits',
        ['x', 'w', 'one'],
        ['y'],
        { K: 32, N: 8, bits: 4, block_size: 32 },
        microsoft,
      ),
      [q('w', [8, 1, 16]), one],
      /below 8 bits/,
    ],
    [
      'DynamicQuantizeMatMul',
      node('DynamicQuantizeMatMul', ['x', 'w', 'one'], ['y'], {}, microsoft),
      [q('w', [8, 8]), one],
      /integer/,
    ],
  ];
  test.each(refusals)('%s', (_, n, initializer, reason) => {
    expect(only(network([n], initializer)).skip).toMatch(reason);
  });

  test('products of two activations are no layers at all', () => {
    const m = network(
      [
        node('MatMul', ['x', 'x'], ['h']),
        node('Einsum', ['h', 'h'], ['y'], { equation: 'ij,ij->i' }),
      ],
      [],
    );
    expect(layersOf(m)).toEqual([]);
  });

  test('an unknown domain with a known op name, and op names of JavaScript', () => {
    const m = network(
      [
        node('MatMul', ['x', 'w'], ['a'], {}, { domain: 'custom' }),
        node('constructor', ['a', 'w'], ['b']),
        node('__proto__', ['b', 'w'], ['y']),
      ],
      [w],
    );
    expect(layersOf(m)).toEqual([]);
  });

  test('damaged geometry is told, not thrown', () => {
    const through = (n: NodeProto, more: TensorProto[] = []) =>
      only(network([n, node('MatMul', ['x', 'w'], ['y'])], [weight('v', [2, 3]), ...more])).skip;
    expect(through(node('Transpose', ['v'], ['w'], { perm: [7, 0] }))).toMatch(/does not fit/);
    expect(through(node('Reshape', ['v', 's'], ['w']), [ints('s', -2, -3)])).toBeDefined();
    expect(through(node('Squeeze', ['v', 's'], ['w']), [ints('s', 9)])).toBeUndefined();
    expect(through(node('Unsqueeze', ['v', 's'], ['w']), [ints('s', 40)])).toBeDefined();
  });
});

describe('names', () => {
  const w = weight('w', [8, 8]);
  const names = (nodes: NodeProto[]) => layersOf(network(nodes, [w])).map(({ name }) => name);

  test('are those of the nodes, else of the weights, with the body they stand in', () => {
    const inner = graph({
      initializer: [weight('v', [8, 8])],
      node: [node('MatMul', ['x', 'v'], ['a'])],
      output: [{ name: 'a' }],
    });
    expect(
      names([
        node('MatMul', ['x', 'w'], ['h'], {}, { name: '/block/MatMul' }),
        node('MatMul', ['h', 'w'], ['i']),
        node('Constant', [], ['stored'], { value: weight('', [8, 8]) }),
        node('MatMul', ['i', 'stored'], ['j']),
        node('If', ['c'], ['y'], {
          then_branch: inner,
          else_branch: graph({ output: [{ name: 'x' }] }),
        }),
        node('Constant', [], ['c'], {
          value: { dims: [], dataType: 9, rawData: Uint8Array.of(1) },
        }),
      ]),
    ).toEqual(['/block/MatMul', 'w', 'stored', 'y.then_branch/v']);
  });

  test('are unique, even where files repeat them', () => {
    const all = names(
      ['a', 'a#2', 'a', 'a', 'a#2', 'b'].map((name, i) =>
        node('MatMul', [i ? `h${i - 1}` : 'x', 'w'], [`h${i}`], {}, { name }),
      ),
    );
    expect(new Set(all).size).toBe(6);
    expect(all.slice(0, 2)).toEqual(['a', 'a#2']);
  });
});

describe('the head', () => {
  const head = (after: NodeProto[], rows = 32, output = 'y') => {
    const m = network(
      [node('MatMul', ['x', 'w'], ['logits']), ...after],
      [weight('w', [8, rows]), weight('b', [rows]), ints('shape', -1, rows)],
    );
    m.graph!.output = [{ name: output }];
    return layersOf(m)[0].isHead;
  };

  test('is a wide layer that the output comes from, through a bias, casts and reshapes', () => {
    expect(head([], 32, 'logits')).toBe(true);
    expect(
      head([
        node('Add', ['logits', 'b'], ['a']),
        node('Cast', ['a'], ['c'], { to: dtypeCode('float32') }),
        node('Reshape', ['c', 'shape'], ['r']),
        node('Identity', ['r'], ['y']),
      ]),
    ).toBe(true);
  });

  test('is none where the output is not much wider than the input', () => {
    expect(head([], 31, 'logits')).toBe(false);
  });

  test('is none where something else follows', () => {
    expect(head([node('Relu', ['logits'], ['y'])])).toBe(false);
    expect(
      head([
        node('MatMul', ['logits', 'v'], ['y']),
        node('Constant', [], ['v'], { value: weight('', [32, 4]) }),
      ]),
    ).toBe(false);
  });

  test('is none where nothing follows and it is no output', () => {
    expect(head([node('Neg', ['x'], ['y'])])).toBe(false);
  });

  test('is no convolution', () => {
    const m = network([node('Conv', ['x', 'w'], ['y'])], [weight('w', [64, 1, 3, 3])]);
    expect(layersOf(m)[0].isHead).toBe(false);
  });

  test('of our language model', async () => {
    const { proto } = await readModel(inRepository('fixtures/gpt-moby/gpt-moby.onnx'));
    const layers = findLinearLayers(new Graph(proto));
    expect(layers.filter(({ isHead }) => isHead).map(({ name }) => name)).toEqual(['/head/MatMul']);
    expect(layers.filter(({ skip }) => skip)).toEqual([]);
    expect(layers.length).toBe(25);
  });
});

test('a cycle behind a layer is refused, not followed without end', () => {
  const m = network(
    [
      node('MatMul', ['x', 'w'], ['h']),
      node('Add', ['h', 'j'], ['i']),
      node('Identity', ['i'], ['j']),
      node('Relu', ['x'], ['y']),
    ],
    [weight('w', [8, 64])],
  );
  expect(() => layersOf(m)).toThrow(expect.objectContaining({ exitCode: 5 }));
});
