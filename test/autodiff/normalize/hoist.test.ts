import { Tensor } from 'onnxruntime-node';
import { hoistBodyConstants } from '../../../src/autodiff/normalize/hoist.js';
import { Origins } from '../../../src/autodiff/normalize/origins.js';
import { allGraphs } from '../../../src/graph/bodies.js';
import { branch, emptyGraph, makeNode, tensor } from '../../../src/graph/build.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../../../src/onnx/index.js';
import { weight } from '../../support/protos.js';
import { float64, withGradients } from '../small-models.js';
import { expectSame, feed, modelOf } from './helpers.js';

const body = (nodes: NodeProto[], output: string, initializer: TensorProto[] = []): GraphProto => ({
  ...emptyGraph('body'),
  node: nodes,
  initializer,
  output: [{ name: output }],
});

const choice = (condition: string, then: GraphProto, other: GraphProto, output = 'y') =>
  makeNode('If', [condition], output, [branch('then_branch', then), branch('else_branch', other)]);

const truth = (value: boolean) => new Tensor('bool', Uint8Array.of(value ? 1 : 0), []);

const hoist = (model: ModelProto) => {
  const origins = new Origins();
  return { origins, model: hoistBodyConstants(model, origins) };
};

/** Names of float initializers by graph, the main graph first. */
const storedIn = (model: ModelProto) =>
  model.graph ? [...allGraphs(model.graph)].map((g) => g.initializer.map(({ name }) => name)) : [];

/**
 * Two branches that name their weights alike, with a branch in one that reads them from outside.
 * @param own the name of a constant inside of it: `w` hides that outside, which the runtime refuses
 */
function nested(own = 'v') {
  const [w1, w2, w3] = [weight('w', [3, 3]), weight('w', [3, 3]), weight('', [3, 3])];
  w2.rawData = w2.rawData?.slice().reverse().fill(0, 0, 4);
  const inner = choice(
    'second',
    body([makeNode('MatMul', ['x', 'w'], 'deep')], 'deep'),
    body(
      [makeNode('Constant', [], own, [tensor('value', w3)]), makeNode('Mul', ['x', own], 'own')],
      'own',
    ),
    'inner',
  );
  return {
    tensors: { w1, w2, w3 },
    make: (feeds: Record<string, Tensor>) =>
      modelOf({
        opset: 17,
        nodes: [
          choice(
            'first',
            body([inner, makeNode('Tanh', ['inner'], 't')], 't', [w1]),
            body([makeNode('MatMul', ['x', 'w'], 'e')], 'e', [w2]),
          ),
        ],
        feeds,
      }),
  };
}

describe('hoistBodyConstants', () => {
  test('gives constants of one name names of their own, at every depth', async () => {
    const { tensors, make } = nested('w');
    for (const [first, second] of [
      [true, true],
      [true, false],
      [false, true],
    ]) {
      const feeds = { x: feed([3, 3]), first: truth(first), second: truth(second) };
      const { model, origins } = hoist(make(feeds));
      const stored = model.graph?.initializer ?? [];
      expect(new Set(stored.map(origins.of.bind(origins)))).toEqual(
        new Set([tensors.w1, tensors.w2, tensors.w3]),
      );
      expect(new Set(stored.map(({ name }) => name)).size).toBe(3);
      expect(stored.map(({ name }) => name)).toContain('y.then_branch/w');
      expect(storedIn(model).slice(1).flat()).toEqual([]);
      // By reference: no values are copied.
      for (const t of stored) expect(t.rawData).toBe(origins.of(t).rawData);
    }
  });

  test.each([
    [true, true],
    [true, false],
    [false, false],
  ])('keeps what the model computes: %s, %s', async (first, second) => {
    const feeds = { x: feed([3, 3]), first: truth(first), second: truth(second) };
    const before = nested().make(feeds);
    await expectSame(before, hoist(before).model, feeds);
  });

  test('leaves integers, outputs of bodies, and models without bodies', async () => {
    const feeds = { x: feed([3, 3]), first: truth(true) };
    const shape = makeNode('Constant', [], 'shape', [{ name: 'value_ints', type: 7, ints: [9] }]);
    const model = modelOf({
      opset: 17,
      nodes: [
        choice(
          'first',
          body([shape, makeNode('Reshape', ['x', 'shape'], 'r')], 'r'),
          body([makeNode('Constant', [], 'out', [tensor('value', weight('', [9]))])], 'out'),
        ),
      ],
      feeds,
    });
    expect(hoist(model).model).toBe(model);
    const plain = modelOf({ opset: 17, nodes: [makeNode('Tanh', ['x'], 'y')], feeds });
    expect(hoist(plain).model).toBe(plain);
  });
});

describe('parameters inside of branches', () => {
  const branches = (nodes: NodeProto[]) => {
    const { graph, ...rest } = modelOf({ opset: 17, nodes, feeds: { x: feed([3, 3]) } });
    return { ...rest, graph: graph && { ...graph, input: graph.input.slice(0, 1) } };
  };
  const rows = [
    makeNode('Shape', ['x'], 'dims'),
    makeNode('ReduceMax', ['dims'], 'longest', [{ name: 'keepdims', type: 2, i: 0 }]),
  ];

  test('of a condition that shapes decide have gradients, those not taken 0', () =>
    withGradients(
      branches([
        ...rows,
        makeNode('Greater', ['longest', 'longest'], 'never'),
        choice(
          'never',
          body([makeNode('MatMul', ['x', 'w'], 'a')], 'a', [weight('w', [3, 2])]),
          body([makeNode('MatMul', ['x', 'w'], 'b')], 'b', [weight('w', [3, 2])]),
        ),
      ]),
      { loss: 'squared-norm' },
      async (model) => {
        const data = Float32Array.from(float64([3, 3]).data as Float64Array);
        const { gradients } = await model.run({ x: { dtype: 'float32', dims: [3, 3], data } });
        expect([...gradients.keys()]).toEqual(['y.then_branch/w', 'y.else_branch/w']);
        const [taken, other] = [...gradients.values()].reverse();
        expect(other.every((g) => g === 0)).toBe(true);
        expect(taken.some((g) => g !== 0)).toBe(true);
      },
    ));

  test('of a condition that the data decides are refused', () =>
    withGradients(
      branches([
        makeNode('ReduceSum', ['x'], 'sum', [{ name: 'keepdims', type: 2, i: 0 }]),
        makeNode('Greater', ['sum', 'sum'], 'unknown'),
        choice(
          'unknown',
          body([makeNode('MatMul', ['x', 'w'], 'a')], 'a', [weight('w', [3, 2])]),
          body([makeNode('MatMul', ['x', 'w'], 'b')], 'b', [weight('w', [3, 2])]),
        ),
      ]),
      { loss: 'squared-norm' },
      async (model) => {
        const x = { dtype: 'float32' as const, dims: [3, 3], data: new Float32Array(9) };
        await expect(model.run({ x })).rejects.toMatchObject({
          op: 'If',
          exitCode: 5,
          unreachable: ['y.then_branch/w', 'y.else_branch/w'],
          detail: { got: expect.stringContaining('whose condition is constant would have') },
        });
      },
    ));
});
