import { Tensor } from 'onnxruntime-node';
import { Constants, type ConstantView, isView } from '../../src/graph/constants.js';
import { Graph } from '../../src/graph/graph.js';
import {
  dtypeCode,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../../src/onnx/index.js';
import { floats, graph, ints, model, node, value, weight } from '../support/protos.js';
import { type Output, runOnce } from '../support/run.js';
import { noise } from './helpers.js';

/** A model whose output `y` is a constant behind `nodes`, which start at the initializer `w`. */
const behind = (
  shape: number[],
  nodes: NodeProto[],
  more: TensorProto[] = [],
  opset = 17,
): ModelProto =>
  model(
    {
      input: [value('x', [1])],
      initializer: [weight('w', shape), ...more],
      node: nodes,
      output: [{ name: 'y' }],
    },
    { opsetImport: [{ version: opset }] },
  );

const traced = (m: ModelProto, name = 'y') => {
  const g = new Graph(m);
  const found = g.root.values.get(name);
  if (!found) throw new Error(`no value ${name}`);
  return new Constants(g).trace(found);
};

const view = (m: ModelProto, name = 'y'): ConstantView => {
  const found = traced(m, name);
  if (!isView(found)) throw new Error(`not traced: ${JSON.stringify(found)}`);
  return found;
};

/** The elements of the stored tensor in the order in which the view shows them. */
function gather({ tensor, axes }: ConstantView): number[] {
  const bytes = tensor.rawData!;
  const stored = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  let at = [0];
  for (const { size, stride } of axes)
    at = at.flatMap((base) => Array.from({ length: size }, (_, i) => base + i * stride));
  return at.map((i) => stored[i]);
}

const x = new Tensor('float32', Float32Array.of(0), [1]);

/** The view must show what the runtime puts out. */
async function expectRuntimeAgrees(m: ModelProto) {
  const { y }: Record<string, Output> = await runOnce(m, { x });
  const shown = view(m);
  expect(shown.axes.map(({ size }) => size)).toEqual([...y.dims]);
  expect(gather(shown)).toEqual(Array.from(y.data, Number));
}

describe('a constant is followed to its storage', () => {
  const cases: [string, ModelProto][] = [
    ['Identity', behind([2, 3], [node('Identity', ['w'], ['y'])])],
    ['Cast', behind([2, 3], [node('Cast', ['w'], ['y'], { to: dtypeCode('float64') })])],
    ['Transpose without perm', behind([2, 3, 4], [node('Transpose', ['w'], ['y'])])],
    [
      'Transpose with perm',
      behind([2, 3, 4], [node('Transpose', ['w'], ['y'], { perm: [1, 2, 0] })]),
    ],
    [
      'two Transposes',
      behind(
        [2, 3, 4],
        [
          node('Transpose', ['w'], ['a'], { perm: [1, 2, 0] }),
          node('Transpose', ['a'], ['y'], { perm: [2, 1, 0] }),
        ],
      ),
    ],
    ['Reshape', behind([2, 6], [node('Reshape', ['w', 's'], ['y'])], [ints('s', 3, 2, 2)])],
    [
      'Reshape with -1 and 0',
      behind([2, 6], [node('Reshape', ['w', 's'], ['y'])], [ints('s', 0, -1, 3)]),
    ],
    [
      'Reshape by a Constant node',
      behind(
        [2, 6],
        [
          node('Constant', [], ['s'], { value: ints('', 4, 3) }),
          node('Reshape', ['w', 's'], ['y']),
        ],
      ),
    ],
    ['Squeeze by axes', behind([1, 3, 1, 2], [node('Squeeze', ['w', 'a'], ['y'])], [ints('a', 0)])],
    [
      'Squeeze by negative axes',
      behind([1, 3, 1, 2], [node('Squeeze', ['w', 'a'], ['y'])], [ints('a', -2)]),
    ],
    ['Squeeze of all ones', behind([1, 3, 1, 2], [node('Squeeze', ['w'], ['y'])])],
    [
      'Squeeze by an attribute',
      behind([1, 3, 1, 2], [node('Squeeze', ['w'], ['y'], { axes: [2] })], [], 11),
    ],
    ['Unsqueeze', behind([3, 2], [node('Unsqueeze', ['w', 'a'], ['y'])], [ints('a', 0, 2)])],
    [
      'Unsqueeze by negative axes',
      behind([3, 2], [node('Unsqueeze', ['w', 'a'], ['y'])], [ints('a', -1, -4)]),
    ],
    [
      'Unsqueeze by an attribute',
      behind([3, 2], [node('Unsqueeze', ['w'], ['y'], { axes: [1] })], [], 11),
    ],
    ['Flatten', behind([2, 3, 4], [node('Flatten', ['w'], ['y'])])],
    ['Flatten at the front', behind([2, 3, 4], [node('Flatten', ['w'], ['y'], { axis: 0 })])],
    ['Flatten at the end', behind([2, 3, 4], [node('Flatten', ['w'], ['y'], { axis: 3 })])],
    [
      'Flatten at a negative axis',
      behind([2, 3, 4], [node('Flatten', ['w'], ['y'], { axis: -1 })]),
    ],
    [
      'ones that move after a Transpose',
      behind(
        [2, 3],
        [
          node('Transpose', ['w'], ['t']),
          node('Unsqueeze', ['t', 'a'], ['u']),
          node('Squeeze', ['u', 'a'], ['y']),
        ],
        [ints('a', 0)],
      ),
    ],
    [
      'Reshape of a Transpose and back',
      behind(
        [4, 6],
        [
          node('Reshape', ['w', 's'], ['r']),
          node('Transpose', ['r'], ['t'], { perm: [1, 0, 2] }),
          node('Transpose', ['t'], ['u'], { perm: [1, 0, 2] }),
          node('Flatten', ['u'], ['y']),
        ],
        [ints('s', 4, 2, 3)],
      ),
    ],
  ];
  test.each(cases)('%s', (_, m) => expectRuntimeAgrees(m));

  test('a scalar', () => expectRuntimeAgrees(behind([], [node('Identity', ['w'], ['y'])])));

  test('a Reshape with the shape as attribute, as before opset 5', () => {
    const m = behind([2, 6], [node('Reshape', ['w'], ['y'], { shape: [3, 4] })], [], 4);
    expect(view(m).axes).toEqual([
      { size: 3, stride: 4 },
      { size: 4, stride: 1 },
    ]);
  });

  test('allowzero makes a 0 a size', () => {
    const m = behind(
      [0, 6],
      [node('Reshape', ['w', 's'], ['y'], { allowzero: 1 })],
      [ints('s', 3, 0)],
    );
    expect(view(m).axes.map(({ size }) => size)).toEqual([3, 0]);
  });

  test('from inside a body, through a value of the graph around it', () => {
    const m = model({
      input: [value('c', [], 'bool')],
      initializer: [weight('w', [2, 3])],
      node: [
        node('Transpose', ['w'], ['t']),
        node('If', ['c'], ['y'], {
          then_branch: graph({ node: [node('Identity', ['t'], ['a'])], output: [{ name: 'a' }] }),
          else_branch: graph({ initializer: [weight('b', [3, 2])], output: [{ name: 'b' }] }),
        }),
      ],
      output: [{ name: 'y' }],
    });
    const g = new Graph(m);
    const constants = new Constants(g);
    const inner = constants.trace(g.scopes[1].values.get('a')!);
    expect(isView(inner) && inner.tensor.name).toBe('w');
    expect(constants.isOutput(m.graph!.initializer[0])).toBe(true);
    expect(traced(m)).toBeUndefined(); // which branch is taken depends on the input
  });

  test('the source is the value that stores it', () => {
    const m = behind(
      [2],
      [
        node('Constant', [], ['c'], { value: weight('', [3]) }),
        node('Identity', ['c'], ['same']),
        node('Add', ['same', 'w'], ['y']),
      ],
    );
    expect(view(m, 'same').source.name).toBe('c');
  });

  test('a chain of 20,000 nodes, in whatever order', () => {
    const n = 20_000;
    const chain = Array.from({ length: n }, (_, i) =>
      node('Identity', [i === 0 ? 'w' : `v${i - 1}`], [i === n - 1 ? 'y' : `v${i}`]),
    );
    expect(view(behind([2], chain)).tensor.name).toBe('w');
    expect(view(behind([2], chain.reverse())).tensor.name).toBe('w');
  });
});

describe('a quantized constant', () => {
  const quantized = (
    shape: number[],
    scale: TensorProto,
    more: TensorProto[],
    axis?: number,
    after: NodeProto[] = [],
  ) =>
    model({
      input: [value('x', [1])],
      initializer: [
        makeTensor({
          name: 'q',
          dtype: 'int8',
          shape,
          bytes: new Uint8Array(
            Int8Array.from(noise(shape.reduce((a, b) => a * b, 1)), (v) => v * 100).buffer,
          ),
        }),
        scale,
        ...more,
      ],
      node: [
        node(
          'DequantizeLinear',
          ['q', scale.name!, ...more.map((t) => t.name!)],
          [after.length ? 'd' : 'y'],
          axis === undefined ? {} : { axis },
        ),
        ...after,
      ],
      output: [{ name: 'y' }],
    });

  test('with one scale', () => {
    const { dequantization, tensor } = view(
      quantized([2, 3], floats('s', [], Float32Array.of(0.1)), []),
    );
    expect(tensor.name).toBe('q');
    expect(dequantization).toMatchObject({ scale: { name: 's' } });
    expect(dequantization?.axis).toBeUndefined();
    expect(dequantization?.zeroPoint).toBeUndefined();
  });

  test('with scales along an axis, which a Transpose behind it does not move', () => {
    const scale = floats('s', [2], Float32Array.of(0.1, 0.2));
    const zero = makeTensor({ name: 'z', dtype: 'int8', shape: [2], bytes: Uint8Array.of(1, 2) });
    const shown = view(quantized([2, 3], scale, [zero], 0, [node('Transpose', ['d'], ['y'])]));
    expect(shown.dequantization).toMatchObject({
      scale: { name: 's' },
      zeroPoint: { name: 'z' },
      axis: { size: 2, stride: 3 },
    });
    expect(shown.axes).toEqual([
      { size: 3, stride: 1 },
      { size: 2, stride: 3 },
    ]);
  });

  test('with scales along an axis of the transposed levels', () => {
    const m = quantized([2, 3], floats('s', [2], Float32Array.of(0.1, 0.2)), [], 1);
    m.graph!.node = [
      node('Transpose', ['q'], ['t']),
      node('DequantizeLinear', ['t', 's'], ['y'], { axis: -1 }),
    ];
    expect(view(m).dequantization?.axis).toEqual({ size: 2, stride: 3 });
  });

  test('whose scales do not fit, or depend on the input, or go block by block', () => {
    const reason = (m: ModelProto) => (traced(m) as { reason: string }).reason;
    expect(reason(quantized([2, 3], floats('s', [2], noise(2)), [], 1))).toMatch(
      /scale that does not fit/,
    );
    const dynamic = quantized([2, 3], floats('s', [], noise(1)), []);
    dynamic.graph!.node[0].input[1] = 'x';
    expect(reason(dynamic)).toMatch(/scale or zero point that is not stored/);
    const blocks = quantized([2, 4], floats('s', [2, 2], noise(4)), [], 1);
    blocks.graph!.node[0].attribute.push({ name: 'block_size', i: 2 });
    expect(reason(blocks)).toMatch(/block/);
  });
});

describe('what is not traced, and why', () => {
  const reason = (m: ModelProto) => {
    const found = traced(m);
    return found && 'reason' in found ? found.reason : found;
  };

  test('an activation has no reason: it is no constant', () => {
    expect(traced(behind([1], [node('Add', ['w', 'x'], ['y'])]))).toBeUndefined();
    expect(traced(behind([1], [node('Identity', ['x'], ['y'])]))).toBeUndefined();
  });

  test('a value computed from constants', () => {
    expect(reason(behind([2], [node('Mul', ['w', 'w'], ['y'])]))).toBe(
      'computed by Mul from constants',
    );
    expect(
      reason(
        behind(
          [2],
          [
            node('Gelu', ['w'], ['h'], {}, { domain: 'com.microsoft' }),
            node('Identity', ['h'], ['y']),
          ],
        ),
      ),
    ).toBe('computed by com.microsoft.Gelu from constants');
  });

  test('a random value is no constant', () => {
    expect(traced(behind([2], [node('RandomNormal', [], ['y'], { shape: [2] })]))).toBeUndefined();
  });

  test('lists and sparse tensors', () => {
    expect(
      reason(
        behind(
          [2],
          [
            {
              ...node('Constant', [], ['y']),
              attribute: [{ name: 'value_floats', floats: [1, 2] }],
            },
          ],
        ),
      ),
    ).toMatch(/list or a sparse/);
    const sparse = model({
      sparseInitializer: [{ values: weight('w', [2]), indices: ints('', 0, 3), dims: [4] }],
      node: [node('Identity', ['w'], ['y'])],
      output: [{ name: 'y' }],
    });
    expect(reason(sparse)).toMatch(/sparse/);
  });

  test('a Reshape that mixes transposed axes, or to a shape that is computed', () => {
    const mixed = behind(
      [2, 3],
      [node('Transpose', ['w'], ['t']), node('Reshape', ['t', 's'], ['y'])],
      [ints('s', 6)],
    );
    expect(reason(mixed)).toMatch(/Reshape after a Transpose/);
    const computed = behind(
      [2, 3],
      [node('Shape', ['x'], ['s']), node('Reshape', ['w', 's'], ['y'])],
    );
    expect(reason(computed)).toMatch(/shape that is not stored/);
  });

  test('a shape that does not fit', () => {
    expect(
      reason(behind([2, 3], [node('Reshape', ['w', 's'], ['y'])], [ints('s', 5)])),
    ).toBeDefined();
    expect(
      reason(behind([2, 3], [node('Reshape', ['w', 's'], ['y'])], [ints('s', -1, 4)])),
    ).toBeDefined();
    expect(reason(behind([2, 3], [node('Transpose', ['w'], ['y'], { perm: [0] })]))).toMatch(
      /does not fit/,
    );
  });

  test('what comes out of an If that a constant decides, over activations', () => {
    const m = behind(
      [1],
      [
        node('Constant', [], ['c'], {
          value: { dims: [], dataType: 9, rawData: Uint8Array.of(1) },
        }),
        node('If', ['c'], ['y'], {
          then_branch: graph({ node: [node('Neg', ['x'], ['a'])], output: [{ name: 'a' }] }),
          else_branch: graph({ node: [node('Abs', ['x'], ['b'])], output: [{ name: 'b' }] }),
        }),
      ],
    );
    expect(traced(m)).toBeUndefined();
  });
});

describe('uses', () => {
  const m = model({
    input: [value('x', [1, 2])],
    initializer: [weight('w', [2, 2])],
    node: [
      node('Identity', ['w'], ['same']),
      node('Transpose', ['same'], ['turned']),
      node('Transpose', ['w'], ['spare']),
      node('MatMul', ['x', 'turned'], ['h'], {}, { name: 'first' }),
      node('MatMul', ['h', 'w'], ['y'], {}, { name: 'second' }),
    ],
    output: [value('y', [1, 2])],
  });

  test('are the reads behind changes of shape and name', () => {
    const uses = new Constants(new Graph(m)).uses(m.graph!.initializer[0]);
    expect(uses.map(({ node: n, index }) => [n.name, index])).toEqual([
      ['first', 1],
      ['second', 1],
    ]);
    expect(uses.map(({ view: v }) => v.axes.map(({ stride }) => stride))).toEqual([
      [1, 2],
      [2, 1],
    ]);
  });

  test('a cycle is refused, not followed', () => {
    const cyclic = behind([2], [node('Identity', ['y'], ['h']), node('Identity', ['h'], ['y'])]);
    expect(() => traced(cyclic)).toThrow(expect.objectContaining({ exitCode: 5 }));
  });
});
