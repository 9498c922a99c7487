import type { Tensor } from 'onnxruntime-node';
import { expandFused } from '../../../src/autodiff/normalize/fused.js';
import { float, int, ints, makeNode, string } from '../../../src/graph/build.js';
import { isStandard } from '../../../src/graph/nodes.js';
import type { AttributeProto, ModelProto, NodeProto } from '../../../src/onnx/index.js';
import { value, weight } from '../../support/protos.js';
import { type Case, expectSame, feed, floatList, int32s, int64s, modelOf } from './helpers.js';

const ms = (
  op: string,
  input: string[],
  output: string | string[],
  attributes: AttributeProto[] = [],
): NodeProto => makeNode(op, input, output, attributes, 'com.microsoft');

const x = (...dims: number[]) => ({ x: feed(dims) });

type Row = [string, Case];

const activations: Row[] = [
  ['Gelu of opset 20', { opset: 20, nodes: [makeNode('Gelu', ['x'], 'y')], feeds: x(3, 40) }],
  [
    'Gelu by tanh',
    {
      opset: 20,
      nodes: [makeNode('Gelu', ['x'], 'y', [string('approximate', 'tanh')])],
      feeds: x(3, 40),
    },
  ],
  ['com.microsoft.Gelu', { opset: 17, nodes: [ms('Gelu', ['x'], 'y')], feeds: x(3, 40) }],
  [
    'BiasGelu',
    {
      opset: 17,
      nodes: [ms('BiasGelu', ['x', 'b'], 'y')],
      feeds: x(3, 40),
      initializers: [weight('b', [40])],
    },
  ],
  ['FastGelu', { opset: 17, nodes: [ms('FastGelu', ['x'], 'y')], feeds: x(3, 40) }],
  [
    'FastGelu with bias',
    {
      opset: 17,
      nodes: [ms('FastGelu', ['x', 'b'], 'y')],
      feeds: x(3, 40),
      initializers: [weight('b', [40])],
    },
  ],
  ['QuickGelu', { opset: 17, nodes: [ms('QuickGelu', ['x'], 'y')], feeds: x(3, 40) }],
  [
    'QuickGelu as SiLU',
    { opset: 17, nodes: [ms('QuickGelu', ['x'], 'y', [float('alpha', 1)])], feeds: x(3, 40) },
  ],
  ['HardSwish', { opset: 17, nodes: [makeNode('HardSwish', ['x'], 'y')], feeds: x(3, 40) }],
  ['Mish', { opset: 18, nodes: [makeNode('Mish', ['x'], 'y')], feeds: x(3, 40) }],
  [
    'Shrink',
    {
      opset: 17,
      nodes: [makeNode('Shrink', ['x'], 'y', [float('lambd', 0.4), float('bias', 0.1)])],
      feeds: x(3, 40),
    },
  ],
  [
    'Swish',
    { opset: 24, nodes: [makeNode('Swish', ['x'], 'y', [float('alpha', 1.3)])], feeds: x(3, 40) },
  ],
];

const conv = [ints('kernel_shape', [3, 3]), ints('pads', [1, 1, 1, 1])];
const image = x(2, 3, 6, 7);
const kernel = weight('w', [4, 3, 3, 3]);
const products: Row[] = [
  ...(
    [
      ['Relu', []],
      ['Tanh', []],
      ['Sigmoid', []],
      ['LeakyRelu', [0.3]],
      ['HardSigmoid', [0.3, 0.4]],
      ['Clip', [-0.2, 0.3]],
    ] as [string, number[]][]
  ).map(
    ([op, params]): Row => [
      `FusedConv with ${op}`,
      {
        opset: 17,
        nodes: [
          ms('FusedConv', ['x', 'w', 'b'], 'y', [
            ...conv,
            string('activation', op),
            ...(params.length ? [floatList('activation_params', params)] : []),
          ]),
        ],
        feeds: image,
        initializers: [kernel, weight('b', [4])],
      },
    ],
  ),
  [
    'FusedConv with sum',
    {
      opset: 17,
      nodes: [ms('FusedConv', ['x', 'w', '', 'z'], 'y', [...conv, string('activation', 'Relu')])],
      feeds: { ...image, z: feed([2, 4, 6, 7], 2) },
      initializers: [kernel],
    },
  ],
  [
    'FusedGemm with LeakyRelu',
    {
      opset: 17,
      nodes: [
        ms('FusedGemm', ['x', 'w', 'b'], 'y', [
          int('transB', 1),
          float('alpha', 0.5),
          string('activation', 'LeakyRelu'),
          float('activation_alpha', 0.2),
        ]),
      ],
      feeds: x(3, 5),
      initializers: [weight('w', [4, 5]), weight('b', [4])],
    },
  ],
  [
    'FusedGemm with Relu and no bias',
    {
      opset: 17,
      nodes: [ms('FusedGemm', ['x', 'w'], 'y', [string('activation', 'Relu')])],
      feeds: x(3, 5),
      initializers: [weight('w', [5, 4])],
    },
  ],
  ...(
    [
      [[2, 3, 4, 5], [2, 3, 5, 6], []],
      [
        [2, 3, 5, 4],
        [2, 3, 5, 6],
        [int('transA', 1), float('alpha', 0.25)],
      ],
      [[2, 3, 4, 5], [2, 3, 6, 5], [int('transB', 1)]],
      [[4, 2, 3, 5], [2, 3, 5, 6], [int('transBatchA', 1)]],
      [
        [5, 2, 3, 4],
        [6, 2, 3, 5],
        [int('transBatchA', 1), int('transA', 1), int('transBatchB', 1), int('transB', 1)],
      ],
    ] as [number[], number[], AttributeProto[]][]
  ).map(
    ([a, b, attributes]): Row => [
      `FusedMatMul of [${a}] and [${b}]`,
      {
        opset: 17,
        nodes: [ms('FusedMatMul', ['x', 'b'], 'y', attributes)],
        feeds: { x: feed(a), b: feed(b, 2) },
      },
    ],
  ),
];

const tokens = { x: feed([2, 5, 8]), skip: feed([2, 5, 8], 2) };
const scale = [weight('g', [8]), weight('b', [8]), weight('bias', [8])];
const norms: Row[] = [
  [
    'SkipLayerNormalization',
    {
      opset: 17,
      nodes: [
        ms(
          'SkipLayerNormalization',
          ['x', 'skip', 'g', 'b', 'bias'],
          ['y', '', '', 'sum'],
          [float('epsilon', 1e-5)],
        ),
      ],
      feeds: tokens,
      initializers: scale,
      outputs: ['y', 'sum'],
    },
  ],
  [
    'SkipLayerNormalization without biases',
    {
      opset: 17,
      nodes: [ms('SkipLayerNormalization', ['x', 'skip', 'g'], 'y')],
      feeds: tokens,
      initializers: scale.slice(0, 1),
    },
  ],
  [
    'SkipSimplifiedLayerNormalization',
    {
      opset: 17,
      nodes: [
        ms(
          'SkipSimplifiedLayerNormalization',
          ['x', 'skip', 'g', 'bias'],
          ['y', '', '', 'sum'],
          [float('epsilon', 1e-6)],
        ),
      ],
      feeds: tokens,
      initializers: scale,
      outputs: ['y', 'sum'],
    },
  ],
  [
    'SimplifiedLayerNormalization',
    {
      opset: 17,
      nodes: [makeNode('SimplifiedLayerNormalization', ['x', 'g'], 'y', [int('axis', -1)])],
      feeds: x(2, 5, 8),
      initializers: scale.slice(0, 1),
    },
  ],
  [
    'RMSNormalization',
    {
      opset: 23,
      nodes: [makeNode('RMSNormalization', ['x', 'g'], 'y')],
      feeds: x(2, 5, 8),
      initializers: scale.slice(0, 1),
    },
  ],
  [
    'RMSNormalization over two axes',
    {
      opset: 23,
      nodes: [
        makeNode('RMSNormalization', ['x', 'g'], 'y', [int('axis', 1), float('epsilon', 0.01)]),
      ],
      feeds: x(2, 5, 8),
      initializers: [weight('g', [5, 8])],
    },
  ],
  [
    'GroupNormalization of opset 18',
    {
      opset: 18,
      nodes: [makeNode('GroupNormalization', ['x', 'g', 'b'], 'y', [int('num_groups', 2)])],
      feeds: x(2, 6, 3, 4),
      initializers: [weight('g', [2]), weight('b', [2])],
    },
  ],
  [
    'GroupNormalization of opset 21',
    {
      opset: 21,
      nodes: [makeNode('GroupNormalization', ['x', 'g', 'b'], 'y', [int('num_groups', 2)])],
      feeds: x(2, 6, 3, 4),
      initializers: [weight('g', [6]), weight('b', [6])],
    },
  ],
  [
    'MeanVarianceNormalization',
    { opset: 17, nodes: [makeNode('MeanVarianceNormalization', ['x'], 'y')], feeds: x(2, 3, 4, 5) },
  ],
  [
    'MeanVarianceNormalization of opset 18',
    {
      opset: 18,
      nodes: [makeNode('MeanVarianceNormalization', ['x'], 'y', [ints('axes', [0, 2])])],
      feeds: x(2, 3, 4),
    },
  ],
  [
    'EmbedLayerNormalization',
    {
      opset: 17,
      nodes: [
        ms(
          'EmbedLayerNormalization',
          ['ids', 'types', 'words', 'places', 'segments', 'g', 'b', 'mask'],
          ['y', 'index', 'sum'],
        ),
      ],
      feeds: {
        ids: int32s([2, 3], [4, 1, 0, 2, 5, 5]),
        types: int32s([2, 3], [0, 0, 1, 1, 0, 1]),
        mask: int32s([2, 3], [1, 1, 0, 1, 1, 1]),
      },
      initializers: [
        weight('words', [6, 8]),
        weight('places', [9, 8]),
        weight('segments', [2, 8]),
        ...scale.slice(0, 2),
      ],
      outputs: ['y', 'index', 'sum'],
    },
  ],
  [
    'EmbedLayerNormalization with positions',
    {
      opset: 17,
      nodes: [
        ms(
          'EmbedLayerNormalization',
          ['ids', '', 'words', 'places', '', 'g', 'b', '', 'at'],
          ['y', 'index'],
        ),
      ],
      feeds: { ids: int32s([2, 3], [4, 1, 0, 2, 5, 5]), at: int32s([2, 3], [0, 1, 2, 5, 6, 7]) },
      initializers: [weight('words', [6, 8]), weight('places', [9, 8]), ...scale.slice(0, 2)],
    },
  ],
];

const heads = int('num_heads', 2);
const packed = { initializers: [weight('w', [8, 24]), weight('b', [24])], opset: 17 };
const three = { q: feed([2, 5, 8]), k: feed([2, 7, 8], 2), v: feed([2, 7, 8], 3) };
const four = { q: feed([2, 4, 5, 8]), k: feed([2, 4, 7, 8], 2), v: feed([2, 4, 7, 8], 3) };
const attentions: Row[] = [
  [
    'com.microsoft.Attention',
    { ...packed, nodes: [ms('Attention', ['x', 'w', 'b'], 'y', [heads])], feeds: x(2, 5, 8) },
  ],
  [
    'causal com.microsoft.Attention',
    {
      ...packed,
      nodes: [
        ms('Attention', ['x', 'w', 'b'], 'y', [
          heads,
          int('unidirectional', 1),
          float('scale', 0.3),
        ]),
      ],
      feeds: x(2, 5, 8),
    },
  ],
  [
    'com.microsoft.Attention with sizes',
    {
      opset: 17,
      nodes: [ms('Attention', ['x', 'w', 'b'], 'y', [heads, ints('qkv_hidden_sizes', [4, 4, 6])])],
      feeds: x(2, 5, 8),
      initializers: [weight('w', [8, 14]), weight('b', [14])],
    },
  ],
  [
    'com.microsoft.Attention with a mask',
    {
      ...packed,
      nodes: [ms('Attention', ['x', 'w', 'b', 'm'], 'y', [heads])],
      feeds: { ...x(2, 5, 8), m: int32s([2, 5], [1, 1, 1, 1, 0, 0, 1, 1, 0, 0]) },
    },
  ],
  [
    'com.microsoft.Attention with lengths',
    {
      ...packed,
      nodes: [ms('Attention', ['x', 'w', 'b', 'm'], 'y', [heads])],
      feeds: { ...x(2, 5, 8), m: int32s([2], [5, 3]) },
    },
  ],
  [
    'com.microsoft.Attention with a mask for each query',
    {
      ...packed,
      nodes: [ms('Attention', ['x', 'w', 'b', 'm'], 'y', [heads])],
      feeds: { ...x(2, 2, 8), m: int32s([2, 2, 2], [1, 0, 1, 1, 0, 1, 1, 1]) },
    },
  ],
  [
    'com.microsoft.Attention with a bias of scores',
    {
      ...packed,
      nodes: [ms('Attention', ['x', 'w', 'b', '', '', 's'], 'y', [heads])],
      feeds: { ...x(2, 5, 8), s: feed([2, 2, 5, 5], 4) },
    },
  ],
  [
    'MultiHeadAttention',
    { opset: 17, nodes: [ms('MultiHeadAttention', ['q', 'k', 'v'], 'y', [heads])], feeds: three },
  ],
  [
    'MultiHeadAttention with bias and mask',
    {
      opset: 17,
      nodes: [ms('MultiHeadAttention', ['q', 'k', 'v', 'b', 'm'], 'y', [heads])],
      feeds: { ...three, m: int32s([2, 7], [1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0]) },
      initializers: [weight('b', [24])],
    },
  ],
  [
    'MultiHeadAttention with a bias of scores and present state',
    {
      opset: 17,
      nodes: [
        ms(
          'MultiHeadAttention',
          ['q', 'k', 'v', '', '', 's'],
          ['y', 'pk', 'pv'],
          [heads, float('scale', 0.2)],
        ),
      ],
      feeds: { ...three, s: feed([1, 2, 5, 7], 4) },
      outputs: ['y', 'pk', 'pv'],
    },
  ],
  [
    'causal MultiHeadAttention',
    {
      opset: 17,
      nodes: [ms('MultiHeadAttention', ['q', 'q', 'q'], 'y', [heads, int('unidirectional', 1)])],
      feeds: { q: feed([2, 5, 8]) },
    },
  ],
  ['Attention', { opset: 23, nodes: [makeNode('Attention', ['q', 'k', 'v'], 'y')], feeds: four }],
  [
    'Attention with softcap and a term',
    {
      opset: 23,
      nodes: [
        makeNode('Attention', ['q', 'k', 'v', 's'], 'y', [
          float('softcap', 0.5),
          float('scale', 0.7),
        ]),
      ],
      feeds: { ...four, s: feed([5, 7], 4) },
    },
  ],
  [
    'causal Attention',
    {
      opset: 23,
      nodes: [makeNode('Attention', ['q', 'k', 'v'], 'y', [int('is_causal', 1)])],
      feeds: four,
    },
  ],
  [
    'Attention of matrices with grouped queries',
    {
      opset: 23,
      nodes: [
        makeNode(
          'Attention',
          ['q', 'k', 'v'],
          ['y', 'pk', 'pv'],
          [int('q_num_heads', 4), int('kv_num_heads', 2)],
        ),
      ],
      feeds: { q: feed([2, 5, 8]), k: feed([2, 7, 4], 2), v: feed([2, 7, 4], 3) },
      outputs: ['y', 'pk', 'pv'],
    },
  ],
];

const table = [weight('cos', [9, 4]), weight('sin', [9, 4])];
const at = int64s([2, 5], [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]);
const rotary: Row[] = [0, 1].flatMap((interleaved): Row[] => [
  [
    `com.microsoft.RotaryEmbedding, interleaved ${interleaved}`,
    {
      opset: 17,
      nodes: [
        ms('RotaryEmbedding', ['x', 'at', 'cos', 'sin'], 'y', [int('interleaved', interleaved)]),
      ],
      feeds: { x: feed([2, 3, 5, 8]), at },
      initializers: table,
    },
  ],
  [
    `com.microsoft.RotaryEmbedding of matrices, interleaved ${interleaved}`,
    {
      opset: 17,
      nodes: [
        ms('RotaryEmbedding', ['x', 'at', 'cos', 'sin'], 'y', [
          int('interleaved', interleaved),
          int('num_heads', 3),
        ]),
      ],
      feeds: { x: feed([2, 5, 24]), at },
      initializers: table,
    },
  ],
  [
    `partial com.microsoft.RotaryEmbedding, interleaved ${interleaved}`,
    {
      opset: 17,
      nodes: [
        ms('RotaryEmbedding', ['x', 'at', 'cos', 'sin'], 'y', [
          int('interleaved', interleaved),
          int('num_heads', 2),
          int('rotary_embedding_dim', 8),
        ]),
      ],
      feeds: { x: feed([2, 5, 24]), at },
      initializers: table,
    },
  ],
  [
    `RotaryEmbedding, interleaved ${interleaved}`,
    {
      opset: 23,
      nodes: [
        makeNode('RotaryEmbedding', ['x', 'cos', 'sin', 'at'], 'y', [
          int('interleaved', interleaved),
        ]),
      ],
      feeds: { x: feed([2, 3, 5, 8]), at },
      initializers: table,
    },
  ],
  [
    `partial RotaryEmbedding without positions, interleaved ${interleaved}`,
    {
      opset: 23,
      nodes: [
        makeNode('RotaryEmbedding', ['x', 'cos', 'sin'], 'y', [
          int('interleaved', interleaved),
          int('rotary_embedding_dim', 8),
        ]),
      ],
      feeds: { x: feed([2, 3, 5, 12]), cos: feed([2, 5, 4], 6), sin: feed([2, 5, 4], 7) },
    },
  ],
]);

function expanded(model: ModelProto, fused: string): ModelProto {
  const result = expandFused(model);
  const nodes = result.graph?.node ?? [];
  expect(nodes.map((n) => n.opType)).not.toContain(fused);
  expect(nodes.every(isStandard)).toBe(true);
  return result;
}

describe('expandFused', () => {
  test.each([...activations, ...products, ...norms, ...attentions, ...rotary])(
    '%s',
    async (_, c) => {
      const model = modelOf(c);
      // The runtime's own fusions are off: what remains is the rounding of its fused kernels.
      await expectSame(model, expanded(model, c.nodes[0].opType ?? ''), c.feeds, 2e-6);
    },
  );

  test('constants take the type of what they meet, float64 too', async () => {
    // The runtime has no float64 Erf, hence the tanh form.
    const nodes = [
      makeNode('Cast', ['x'], 'd', [int('to', 11)]),
      makeNode('Gelu', ['d'], 'g', [string('approximate', 'tanh')]),
      makeNode('Cast', ['g'], 'e', [int('to', 1)]),
      makeNode('Mish', ['x'], 'c'),
      makeNode('Add', ['c', 'e'], 'y'),
    ];
    const model = modelOf({ opset: 20, nodes, feeds: x(3, 4) });
    await expectSame(model, expanded(model, 'Gelu'), x(3, 4), 1e-6);
  });

  const alone = (feeds: Record<string, Tensor>, node: NodeProto) => ({
    opset: 17,
    nodes: [node],
    feeds,
  });
  const refused: [string, Case, RegExp][] = [
    [
      'past state',
      alone(
        { past: feed([2, 2, 2, 3, 4]), ...x(2, 5, 8) },
        ms('Attention', ['x', 'w', 'b', '', 'past'], ['y', 'p'], [heads]),
      ),
      /past state/,
    ],
    [
      'packed query, key and value',
      alone({ x: feed([2, 5, 2, 3, 4]) }, ms('MultiHeadAttention', ['x'], 'y', [heads])),
      /packed into one tensor/,
    ],
    [
      'keys in heads',
      alone(
        { ...three, k: feed([2, 2, 7, 4]) },
        ms('MultiHeadAttention', ['q', 'k', 'v'], 'y', [heads]),
      ),
      /into heads already/,
    ],
    [
      'left padding',
      {
        ...packed,
        nodes: [ms('Attention', ['x', 'w', 'b', 'm'], 'y', [heads])],
        feeds: { ...x(2, 5, 8), m: int32s([4], [5, 3, 0, 0]) },
      },
      /mask holds other positions/,
    ],
    [
      'an unknown activation',
      alone(image, ms('FusedConv', ['x', 'w'], 'y', [string('activation', 'Cos')])),
      /activation is Cos/,
    ],
    [
      'an unknown rank',
      alone({}, ms('FusedMatMul', ['x', 'b'], 'y', [int('transBatchA', 1)])),
      /rank of an operand/,
    ],
  ];
  test.each(refused)('refuses %s', (_, c, says) => {
    expect(() => expandFused(modelOf(c))).toThrow(
      expect.objectContaining({ exitCode: 5, message: expect.stringMatching(says) }),
    );
  });

  test('FusedMatMul of operands whose rank the file does not tell', async () => {
    const nodes = [
      makeNode('Identity', ['x'], 'a'),
      makeNode('Identity', ['w'], 'b'),
      ms('FusedMatMul', ['a', 'b'], 'y', [int('transA', 1), int('transB', 1)]),
    ];
    const feeds = { x: feed([3, 2, 5, 4]), w: feed([6, 5], 2) };
    const model = modelOf({ opset: 17, nodes, feeds });
    await expectSame(model, expanded(model, 'FusedMatMul'), feeds, 1e-6);
  });

  test('leaves ops that it does not know', () => {
    const model = modelOf({ opset: 17, nodes: [ms('Inverse', ['x'], 'y')], feeds: x(2, 2) });
    model.graph?.valueInfo.push(value('z', [1]));
    expect(expandFused(model).graph?.node).toEqual(model.graph?.node);
  });
});
