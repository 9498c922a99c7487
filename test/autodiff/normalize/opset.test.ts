import { Tensor } from 'onnxruntime-node';
import { upgradeOpset } from '../../../src/autodiff/normalize/opset.js';
import {
  branch,
  emptyGraph,
  float,
  int,
  ints,
  makeNode,
  string,
} from '../../../src/graph/build.js';
import type { ModelProto, NodeProto } from '../../../src/onnx/index.js';
import { floats, ints as ints64, value, weight } from '../../support/protos.js';
import { type Case, expectSame, feed, floatList, int64s, modelOf } from './helpers.js';

const upgraded = (model: ModelProto): ModelProto => {
  const result = upgradeOpset(model);
  expect(result.opsetImport[0]).toEqual({ domain: '', version: 17 });
  return result;
};

const one = (
  name: string,
  opset: number,
  node: NodeProto,
  dims = [2, 3, 4, 5],
  more: Partial<Case> = {},
): [string, Case] => [
  `${name}, opset ${opset}`,
  { opset, nodes: [node], feeds: { x: feed(dims) }, ...more },
];

const vector = (name: string, ...values: number[]) =>
  floats(name, [values.length], Float32Array.from(values));

const cases: [string, Case][] = [
  one(
    'Slice',
    9,
    makeNode('Slice', ['x'], 'y', [
      ints('starts', [1, -3]),
      ints('ends', [9, -1]),
      ints('axes', [1, 3]),
    ]),
  ),
  one(
    'Slice without axes to the end',
    9,
    makeNode('Slice', ['x'], 'y', [
      ints('starts', [0, 1]),
      { ...ints('ends', []), ints: [9223372036854775807n, 9223372036854775807n] },
    ]),
  ),
  one('TopK', 9, makeNode('TopK', ['x'], ['y', 'i'], [int('k', 2), int('axis', 1)]), undefined, {
    outputs: ['y', 'i'],
  }),
  one('Clip', 9, makeNode('Clip', ['x'], 'y', [float('min', -0.25), float('max', 0.5)])),
  one('Clip from above', 7, makeNode('Clip', ['x'], 'y', [float('max', 0.5)])),
  one('Clip without bounds', 7, makeNode('Clip', ['x'], 'y')),
  one(
    'Pad',
    10,
    makeNode('Pad', ['x'], 'y', [ints('pads', [0, 0, 1, 2, 0, 0, 3, 1]), float('value', 0.5)]),
  ),
  one('Pad with zeros', 10, makeNode('Pad', ['x'], 'y', [ints('pads', [0, 0, 1, 2, 0, 0, 3, 1])])),
  one(
    'Pad by reflection',
    7,
    makeNode('Pad', ['x'], 'y', [
      ints('pads', [0, 0, 1, 2, 0, 0, 1, 1]),
      string('mode', 'reflect'),
    ]),
  ),
  one('Dropout', 7, makeNode('Dropout', ['x'], ['y', 'm'], [float('ratio', 0.9)])),
  one('Dropout', 11, makeNode('Dropout', ['x'], 'y', [float('ratio', 0.9)])),
  ...['Softmax', 'LogSoftmax', 'Hardmax'].flatMap((op) => [
    one(`${op} by default`, 9, makeNode(op, ['x'], 'y')),
    one(`${op} over 2`, 12, makeNode(op, ['x'], 'y', [int('axis', 2)])),
    one(`${op} over 0`, 7, makeNode(op, ['x'], 'y', [int('axis', 0)])),
    one(`${op} over the last`, 11, makeNode(op, ['x'], 'y', [int('axis', -1)])),
    one(`${op} over the one before`, 11, makeNode(op, ['x'], 'y', [int('axis', -2)])),
    one(`${op} of a matrix`, 9, makeNode(op, ['x'], 'y'), [6, 7]),
  ]),
  one('Squeeze', 11, makeNode('Squeeze', ['x'], 'y', [ints('axes', [0, -1])]), [1, 3, 1, 1]),
  one('Squeeze of all', 7, makeNode('Squeeze', ['x'], 'y'), [1, 3, 1, 1]),
  one('Unsqueeze', 12, makeNode('Unsqueeze', ['x'], 'y', [ints('axes', [0, 3])]), [2, 3]),
  one(
    'ReduceSum',
    12,
    makeNode('ReduceSum', ['x'], 'y', [ints('axes', [1, -1]), int('keepdims', 0)]),
  ),
  one('ReduceSum of all', 7, makeNode('ReduceSum', ['x'], 'y')),
  one('ReduceMean', 11, makeNode('ReduceMean', ['x'], 'y', [ints('axes', [-1])])),
  one(
    'Split',
    12,
    makeNode('Split', ['x'], ['a', 'y'], [ints('split', [1, 3]), int('axis', 2)]),
    undefined,
    { outputs: ['a', 'y'] },
  ),
  one(
    'Split in equal parts',
    7,
    makeNode('Split', ['x'], ['a', 'y'], [int('axis', 2)]),
    undefined,
    { outputs: ['a', 'y'] },
  ),
  one('Upsample', 7, makeNode('Upsample', ['x'], 'y', [floatList('scales', [1, 1, 2, 3])])),
  one(
    'Upsample by a fraction',
    7,
    makeNode('Upsample', ['x'], 'y', [floatList('scales', [1, 1, 1.5, 2.3])]),
  ),
  one(
    'Upsample linearly',
    7,
    makeNode('Upsample', ['x'], 'y', [floatList('scales', [1, 1, 2, 3]), string('mode', 'linear')]),
  ),
  one('Upsample', 9, makeNode('Upsample', ['x', 's'], 'y'), undefined, {
    initializers: [vector('s', 1, 1, 2, 2)],
  }),
  one(
    'Upsample linearly',
    9,
    makeNode('Upsample', ['x', 's'], 'y', [string('mode', 'linear')]),
    undefined,
    { initializers: [vector('s', 1, 1, 2, 2)] },
  ),
  ...['nearest', 'linear'].flatMap((mode) =>
    [
      [1, 1, 2, 3],
      [1, 1, 0.5, 0.4],
      [1, 1, 1.7, 1.3],
      [1, 1, 0.3, 0.7],
    ].map((scales) =>
      one(
        `Resize ${mode} by ${scales}`,
        10,
        makeNode('Resize', ['x', 's'], 'y', [string('mode', mode)]),
        [1, 2, 9, 10],
        { initializers: [vector('s', ...scales)] },
      ),
    ),
  ),
  one(
    'Resize for TensorFlow',
    11,
    makeNode('Resize', ['x', 'roi', 's'], 'y', [
      string('coordinate_transformation_mode', 'tf_half_pixel_for_nn'),
      string('nearest_mode', 'floor'),
    ]),
    [1, 2, 9, 10],
    { initializers: [vector('s', 1, 1, 0.6, 2.5), vector('roi')] },
  ),
  one(
    'Resize cubic',
    11,
    makeNode('Resize', ['x', 'roi', 's'], 'y', [string('mode', 'cubic')]),
    [1, 2, 9, 10],
    { initializers: [vector('s', 1, 1, 0.6, 2.5), vector('roi')] },
  ),
  ...[7, 9, 13].map((opset) =>
    one(
      'BatchNormalization',
      opset,
      makeNode('BatchNormalization', ['x', 's', 'b', 'm', 'v'], 'y', [
        float('epsilon', 0.01),
        float('momentum', 0.8),
      ]),
      undefined,
      {
        initializers: [
          weight('s', [3]),
          weight('b', [3]),
          weight('m', [3]),
          vector('v', 0.5, 1, 2),
        ],
      },
    ),
  ),
  one(
    'RoiAlign',
    10,
    makeNode('RoiAlign', ['x', 'rois', 'batch'], 'y', [
      int('output_height', 2),
      int('output_width', 3),
      float('spatial_scale', 0.5),
    ]),
    [1, 2, 9, 10],
    {
      feeds: { x: feed([1, 2, 9, 10]), rois: feed([1, 4]), batch: int64s([1], [0]) },
    },
  ),
  [
    'Scatter, opset 9',
    {
      opset: 9,
      nodes: [makeNode('Scatter', ['x', 'i', 'u'], 'y', [int('axis', 1)])],
      feeds: { x: feed([3, 4]), i: int64s([3, 2], [0, 1, 3, 2, 1, 0]), u: feed([3, 2], 5) },
    },
  ],
  // ONNX Runtime's own, which became standard in opset 17.
  one(
    'LayerNormalization',
    12,
    makeNode('LayerNormalization', ['x', 's', 'b'], 'y', [int('axis', -1), float('epsilon', 0.01)]),
    undefined,
    { initializers: [weight('s', [5]), weight('b', [5])] },
  ),
  one('LeakyRelu', 7, makeNode('LeakyRelu', ['x'], 'y', [float('alpha', 0.2)])),
  one('PRelu', 7, makeNode('PRelu', ['x', 's'], 'y'), undefined, {
    initializers: [weight('s', [3, 1, 1])],
  }),
  one(
    'MaxPool',
    7,
    makeNode('MaxPool', ['x'], 'y', [ints('kernel_shape', [2, 2]), ints('strides', [2, 2])]),
  ),
  one(
    'AveragePool',
    7,
    makeNode('AveragePool', ['x'], 'y', [ints('kernel_shape', [3, 3]), ints('pads', [1, 1, 1, 1])]),
  ),
  one('ArgMax', 11, makeNode('ArgMax', ['x'], 'y', [int('axis', 2)])),
  one(
    'Gemm',
    7,
    makeNode('Gemm', ['x', 'w', 'c'], 'y', [int('transB', 1), float('alpha', 0.5)]),
    [3, 4],
    { initializers: [weight('w', [5, 4]), weight('c', [5])] },
  ),
  one('Pow', 7, makeNode('Pow', ['x', 'e'], 'y'), undefined, { initializers: [vector('e', 2)] }),
  one('Cast', 7, makeNode('Cast', ['x'], 'y', [int('to', 7)])),
  one('Max', 7, makeNode('Max', ['x', 'x'], 'y')),
  one('Flatten', 7, makeNode('Flatten', ['x'], 'y', [int('axis', 2)])),
  one(
    'LSTM',
    7,
    makeNode('LSTM', ['x', 'w', 'r', 'b'], ['y', 'h', 'c'], [int('hidden_size', 3)]),
    [4, 2, 5],
    {
      initializers: [weight('w', [1, 12, 5]), weight('r', [1, 12, 3]), weight('b', [1, 24])],
      outputs: ['y', 'h', 'c'],
    },
  ),
  one(
    'GRU',
    7,
    makeNode(
      'GRU',
      ['x', 'w', 'r'],
      ['y', 'h'],
      [int('hidden_size', 3), int('linear_before_reset', 1)],
    ),
    [4, 2, 5],
    {
      initializers: [weight('w', [1, 9, 5]), weight('r', [1, 9, 3])],
      outputs: ['y', 'h'],
    },
  ),
];

describe('upgradeOpset', () => {
  test.each(cases)('%s', async (_, c) => {
    const model = modelOf(c);
    const text = JSON.stringify(model, (_key, v) => (typeof v === 'bigint' ? String(v) : v));
    await expectSame(model, upgraded(model), c.feeds);
    expect(JSON.stringify(model, (_key, v) => (typeof v === 'bigint' ? String(v) : v))).toBe(text);
  });

  test('BatchNormalization of each element becomes plain arithmetic', async () => {
    const c: Case = {
      opset: 8,
      nodes: [makeNode('BatchNormalization', ['x', 's', 'b', 'm', 'v'], 'y', [int('spatial', 0)])],
      feeds: { x: feed([4, 2, 3]) },
      initializers: [
        weight('s', [2, 3]),
        weight('b', [2, 3]),
        weight('m', [2, 3]),
        floats('v', [2, 3], Float32Array.of(0.5, 1, 2, 3, 4, 5)),
      ],
    };
    await expectSame(modelOf(c), upgraded(modelOf(c)), c.feeds, 1e-6);
  });

  test('bodies are upgraded, in place of what they capture', async () => {
    const body = (axis: number, name: string) => ({
      ...emptyGraph(name),
      node: [
        makeNode('Softmax', ['x'], `${name}/s`, [int('axis', axis)]),
        makeNode('Unsqueeze', [`${name}/s`], `${name}/y`, [ints('axes', [0])]),
      ],
      output: [value(`${name}/y`, [1, 2, 3, 4])],
    });
    const c: Case = {
      opset: 11,
      nodes: [
        makeNode('ReduceSum', ['x'], 'total', [int('keepdims', 0)]),
        makeNode('Greater', ['total', 'zero'], 'condition'),
        makeNode('If', ['condition'], 'y', [
          branch('then_branch', body(1, 'then')),
          branch('else_branch', body(2, 'else')),
        ]),
      ],
      feeds: { x: feed([2, 3, 4]) },
      initializers: [floats('zero', [], Float32Array.of(0))],
    };
    await expectSame(modelOf(c), upgraded(modelOf(c)), c.feeds);
    await expectSame(modelOf(c), upgraded(modelOf(c)), { x: feed([2, 3, 4], 9) });
  });

  test('a name that two branches define tells nothing of either', async () => {
    const body = (rank: number, name: string) => ({
      ...emptyGraph(name),
      node: [
        makeNode('Reshape', ['x', `shape${rank}`], 's'),
        makeNode('Softmax', ['s'], 'p', [int('axis', 1)]),
        makeNode('Reshape', ['p', 'shape2'], `${name}/y`),
      ],
      valueInfo: [value('s', rank === 2 ? [6, 4] : [2, 3, 4])],
      output: [value(`${name}/y`, [6, 4])],
    });
    const c: Case = {
      opset: 11,
      nodes: [
        makeNode('If', ['condition'], 'y', [
          branch('then_branch', body(2, 'then')),
          branch('else_branch', body(3, 'else')),
        ]),
      ],
      feeds: { x: feed([24]), condition: new Tensor('bool', [true], []) },
      initializers: [ints64('shape2', 6, 4), ints64('shape3', 2, 3, 4)],
    };
    const model = modelOf(c);
    for (const condition of [true, false])
      await expectSame(model, upgraded(model), {
        ...c.feeds,
        condition: new Tensor('bool', [condition], []),
      });
  });

  test('Softmax over what is known to be the last axis stays one node', () => {
    const c: Case = {
      opset: 9,
      nodes: [makeNode('Softmax', ['x'], 'y')],
      feeds: { x: feed([6, 7]) },
    };
    expect(upgraded(modelOf(c)).graph?.node).toMatchObject([
      { opType: 'Softmax', attribute: [{ name: 'axis', i: -1 }] },
    ]);
  });

  test('opset 17 and newer stays as it is', () => {
    for (const opset of [17, 18, 23]) {
      const model = modelOf({ opset, nodes: [makeNode('Softmax', ['x'], 'y')], feeds: {} });
      expect(upgradeOpset(model).graph).toBe(model.graph);
      expect(upgradeOpset(model).opsetImport).toEqual(model.opsetImport);
    }
  });

  test('of two imports of the default domain the last one counts, as in the runtime', async () => {
    const c: Case = {
      opset: 13,
      nodes: [makeNode('Softmax', ['x'], 'y', [int('axis', 1)])],
      feeds: { x: feed([2, 3, 4]) },
    };
    const model = modelOf(c);
    const twice = {
      ...model,
      opsetImport: [...model.opsetImport, { domain: 'ai.onnx', version: 11 }],
    };
    await expectSame(twice, upgraded(twice), c.feeds);
  });

  const refused: [string, Case, RegExp][] = [
    ['opset 6', { opset: 6, nodes: [makeNode('Relu', ['x'], 'y')], feeds: {} }, /opset is too old/],
    [
      'a BatchNormalization in training mode',
      {
        opset: 13,
        nodes: [makeNode('BatchNormalization', ['x', 's', 'b', 'm', 'v'], ['y', 'mean'])],
        feeds: {},
      },
      /BatchNormalization .*training mode/,
    ],
    [
      'the mask of an old Dropout',
      {
        opset: 7,
        nodes: [makeNode('Dropout', ['x'], ['y', 'mask'])],
        feeds: {},
        outputs: ['y', 'mask'],
      },
      /Dropout .*mask/,
    ],
    [
      'batched Scan',
      { opset: 8, nodes: [makeNode('Scan', ['', 'x'], ['y'])], feeds: {} },
      /Scan .*batched/,
    ],
    [
      'a Resize that grows and shrinks',
      {
        opset: 10,
        nodes: [makeNode('Resize', ['x', 's'], 'y')],
        feeds: {},
        initializers: [vector('s', 1, 1, 2, 0.5)],
      },
      /Resize .*enlarges one axis/,
    ],
    [
      'an odd rounding for TensorFlow',
      {
        opset: 11,
        nodes: [
          makeNode('Resize', ['x', '', 's'], 'y', [
            string('coordinate_transformation_mode', 'tf_half_pixel_for_nn'),
          ]),
        ],
        feeds: {},
      },
      /Resize .*tf_half_pixel_for_nn/,
    ],
  ];
  test.each(refused)('refuses %s', (_, c, says) => {
    expect(() => upgradeOpset(modelOf(c))).toThrow(
      expect.objectContaining({ exitCode: 5, message: expect.stringMatching(says) }),
    );
  });
});
