import { liftConstants } from '../../../src/autodiff/normalize/constants.js';
import { Origins } from '../../../src/autodiff/normalize/origins.js';
import { branch, emptyGraph, float, int, makeNode, tensor } from '../../../src/graph/build.js';
import { type AttributeProto, AttributeType, type NodeProto } from '../../../src/onnx/index.js';
import { value, weight } from '../../support/protos.js';
import { expectSame, feed, floatList, int64s, modelOf } from './helpers.js';

const constant = (output: string, attribute: AttributeProto): NodeProto =>
  makeNode('Constant', [], output, [attribute]);

const lift = (model: ReturnType<typeof modelOf>) => {
  const origins = new Origins();
  return { origins, model: liftConstants(model, origins) };
};

describe('liftConstants', () => {
  const feeds = { x: feed([2, 3]) };

  test('stored tensors keep their values by reference, and their origin', async () => {
    const w = weight('', [3, 4]);
    const model = modelOf({
      opset: 13,
      nodes: [constant('w', tensor('value', w)), makeNode('MatMul', ['x', 'w'], 'y')],
      feeds,
    });
    const { model: lifted, origins } = lift(model);
    const [initializer] = lifted.graph?.initializer ?? [];
    expect(lifted.graph?.node.map((n) => n.opType)).toEqual(['MatMul']);
    expect(initializer).toMatchObject({ name: 'w', dims: [3, 4] });
    expect(initializer.rawData).toBe(w.rawData);
    expect(origins.of(initializer)).toBe(w);
    expect(w.name).toBe('');
    await expectSame(model, lifted, feeds);
  });

  test('numbers and lists of numbers, exactly', async () => {
    const model = modelOf({
      opset: 13,
      nodes: [
        constant('f', float('value_float', 0.1)),
        constant('fs', floatList('value_floats', [0.1, 0.2, 0.3])),
        constant('i', int('value_int', 2)),
        constant('from', { name: 'value_ints', type: AttributeType.ints, ints: [0, 1] }),
        constant('to', {
          name: 'value_ints',
          type: AttributeType.ints,
          ints: [9223372036854775807n, 9223372036854775807n],
        }),
        makeNode('Slice', ['x', 'from', 'to'], 's'),
        makeNode('Mul', ['x', 'fs'], 'm'),
        makeNode('Add', ['m', 'f'], 'a'),
        makeNode('Gather', ['x', 'i'], 'g', [int('axis', 1)]),
      ],
      feeds,
      outputs: ['s', 'a', 'g'],
    });
    const { model: lifted } = lift(model);
    expect(lifted.graph?.node).toHaveLength(4);
    await expectSame(model, lifted, feeds);
  });

  test('constants of bodies stay', async () => {
    const body = (name: string) => ({
      ...emptyGraph(name),
      node: [
        constant(`${name}/w`, tensor('value', weight('', [3]))),
        makeNode('Add', ['x', `${name}/w`], `${name}/y`),
      ],
      output: [value(`${name}/y`, [2, 3])],
    });
    const model = modelOf({
      opset: 13,
      nodes: [
        constant('c', { ...tensor('value', { dims: [], dataType: 9, rawData: Uint8Array.of(1) }) }),
        makeNode('If', ['c'], 'y', [
          branch('then_branch', body('then')),
          branch('else_branch', body('else')),
        ]),
      ],
      feeds,
    });
    const { model: lifted } = lift(model);
    expect(lifted.graph?.node).toEqual([model.graph?.node[1]]);
    await expectSame(model, lifted, feeds);
  });

  test('an initializer with a default is a constant, not an input', () => {
    const model = modelOf({
      opset: 13,
      nodes: [makeNode('MatMul', ['x', 'w'], 'y')],
      feeds: { ...feeds, w: feed([3, 4]), i: int64s([1], [0]) },
      initializers: [weight('w', [3, 4])],
    });
    expect(lift(model).model.graph?.input.map((v) => v.name)).toEqual(['x', 'i']);
    expect(model.graph?.input).toHaveLength(3);
  });

  test('refuses sparse constants', () => {
    const sparse = {
      name: 'sparse_value',
      type: AttributeType.sparseTensor,
      sparseTensor: { dims: [3] },
    };
    const model = modelOf({ opset: 13, nodes: [constant('w', sparse)], feeds });
    expect(() => lift(model)).toThrow(expect.objectContaining({ exitCode: 5 }));
  });
});
