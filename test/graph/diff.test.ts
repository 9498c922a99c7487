import { type Difference, diffModels } from '../../src/graph/diff.js';
import {
  encodeModel,
  type FunctionProto,
  Model,
  type ModelProto,
  makeTensor,
  parseModel,
  readModel,
  type TensorProto,
} from '../../src/onnx/index.js';
import { realModels } from '../onnx/models.js';
import { floats, graph, ints, model, node, value, weight } from '../support/protos.js';
import { withFloats } from './helpers.js';

/** A model with something of every kind that can differ. */
const base = () => {
  const f: FunctionProto = {
    domain: 'test',
    name: 'F',
    input: ['a', 'b'],
    output: ['c'],
    attribute: ['slope'],
    opsetImport: [{ version: 17 }],
    node: [node('Sub', ['a', 'b'], ['c'])],
  };
  const m = model(
    {
      input: [value('x', ['n', 4]), value('flag', [], 'bool')],
      initializer: [
        weight('w', [4, 4]),
        ints('big', 2 ** 40),
        floats('s', [2], Float32Array.of(1, 2)),
      ],
      sparseInitializer: [{ values: weight('sparse', [2]), indices: ints('', 0, 3), dims: [4] }],
      node: [
        node('MatMul', ['x', 'w'], ['h'], {}, { name: 'multiply' }),
        withFloats(node('LeakyRelu', ['h'], ['r']), { alpha: 0.1 }),
        node('If', ['flag'], ['p', 'q'], {
          then_branch: graph({
            initializer: [weight('inner', [4])],
            node: [node('Add', ['r', 'inner'], ['t']), node('Neg', ['r'], ['u'])],
            output: [{ name: 't' }, { name: 'u' }],
          }),
          else_branch: graph({
            node: [node('Abs', ['r'], ['v'])],
            output: [{ name: 'v' }, { name: 'r' }],
          }),
        }),
        node('F', ['p', 'q'], ['y'], {}, { domain: 'test' }),
      ],
      output: [value('y', ['n', 4])],
    },
    {
      functions: [f],
      metadataProps: [{ key: 'author', value: 'someone' }],
      producerName: 'exporter',
    },
  );
  return m as ModelProto & { graph: NonNullable<ModelProto['graph']>; functions: FunctionProto[] };
};

const open = (m: ModelProto) => parseModel(encodeModel(m));

async function differences(change: (m: ReturnType<typeof base>) => void): Promise<Difference[]> {
  const changed = base();
  change(changed);
  return diffModels(open(base()), open(changed));
}

test.each(realModels)(
  '%s does not differ from itself, nor from how we write it',
  async (_, path) => {
    const original = await readModel(path);
    expect(await diffModels(original, original)).toEqual([]);
    expect(await diffModels(original, open(original.proto))).toEqual([]);
  },
);

test('order and form of storage do not count', async () => {
  const raw = (t: TensorProto) => t.rawData!;
  expect(
    await differences(({ graph: g }) => {
      const [w, big, s] = g.initializer;
      g.initializer = [big, { ...s, rawData: undefined, floatData: [raw(s)] }, w];
    }),
  ).toEqual([]);
});

const cases: [string, (m: ReturnType<typeof base>) => void, Partial<Difference>][] = [
  [
    'IR version',
    (m) => {
      m.irVersion = 9;
    },
    { kind: 'model', where: 'IR version' },
  ],
  [
    'opset',
    (m) => {
      m.opsetImport = [{ version: 18 }];
    },
    { kind: 'model', where: 'opsets' },
  ],
  [
    'input',
    ({ graph: g }) => {
      g.input[0].name = 'z';
    },
    { kind: 'interface', where: 'inputs' },
  ],
  [
    'dimension of the output',
    ({ graph: g }) => {
      g.output = [value('y', ['n', 5])];
    },
    { kind: 'interface', where: 'outputs' },
  ],
  [
    'type of the output',
    ({ graph: g }) => {
      g.output = [value('y', ['n', 4], 'float16')];
    },
    { kind: 'interface', where: 'outputs' },
  ],
  [
    'producer',
    (m) => {
      m.producerName = undefined;
    },
    { kind: 'metadata', where: 'producerName', detail: 'exporter -> none' },
  ],
  [
    'metadata',
    (m) => {
      m.metadataProps![0].value = 'other';
    },
    { kind: 'metadata', where: 'author', detail: 'someone -> other' },
  ],
  [
    'op',
    ({ graph: g }) => {
      g.node[0].opType = 'Mul';
    },
    { kind: 'node', where: 'h', detail: 'op MatMul -> Mul' },
  ],
  [
    'domain of an op',
    ({ graph: g }) => {
      g.node[0].domain = 'custom';
    },
    { kind: 'node', where: 'h' },
  ],
  [
    'wiring',
    ({ graph: g }) => {
      g.node[1].input = ['x'];
    },
    { kind: 'node', where: 'r' },
  ],
  [
    'float attribute',
    ({ graph: g }) => {
      g.node[1].attribute[0].f = 0.2;
    },
    { kind: 'node', where: 'r' },
  ],
  [
    'float attribute that is no number',
    ({ graph: g }) => {
      g.node[1].attribute[0].f = Number.NaN;
    },
    { kind: 'node', where: 'r', detail: expect.stringMatching(/NaN/) },
  ],
  [
    'attribute taken away',
    ({ graph: g }) => {
      g.node[1].attribute = [];
    },
    { kind: 'node', where: 'r' },
  ],
  [
    'node in a body',
    ({ graph: g }) => {
      g.node[2].attribute[0].g!.node[0].opType = 'Sub';
    },
    { kind: 'node', where: 'p.then_branch/t' },
  ],
  [
    'tensor in a body',
    ({ graph: g }) => {
      g.node[2].attribute[0].g!.initializer[0] = floats('inner', [4], new Float32Array(4));
    },
    { kind: 'tensor', where: 'p.then_branch/inner' },
  ],
  [
    'order of a body’s outputs',
    ({ graph: g }) => void g.node[2].attribute[0].g!.output.reverse(),
    { kind: 'node', where: 'p' },
  ],
  [
    'node of a function',
    (m) => {
      m.functions[0].node[0].opType = 'Add';
    },
    { kind: 'node', where: 'test.F/c' },
  ],
  [
    'order of a function’s inputs',
    (m) => void m.functions[0].input.reverse(),
    { kind: 'interface', where: 'function test.F' },
  ],
  [
    'opset of a function',
    (m) => {
      m.functions[0].opsetImport = [{ version: 18 }];
    },
    { kind: 'interface', where: 'function test.F' },
  ],
  [
    'dtype of a tensor',
    ({ graph: g }) => {
      g.initializer[2] = makeTensor({
        name: 's',
        dtype: 'float64',
        shape: [2],
        bytes: new Uint8Array(16),
      });
    },
    { kind: 'tensor', where: 's', detail: 'float32[2] -> float64[2]' },
  ],
  [
    'shape of a tensor',
    ({ graph: g }) => {
      g.initializer[0].dims = [2, 8];
    },
    { kind: 'tensor', where: 'w', detail: 'float32[4, 4] -> float32[2, 8]' },
  ],
  [
    'value',
    ({ graph: g }) => {
      g.initializer[2] = floats('s', [2], Float32Array.of(1, 2.5));
    },
    { kind: 'tensor', where: 's', values: { changed: 1, elements: 2, largest: 0.5 } },
  ],
  [
    'value that is no number now',
    ({ graph: g }) => {
      g.initializer[2] = floats('s', [2], Float32Array.of(Number.NaN, 2.5));
    },
    { kind: 'tensor', where: 's', values: { changed: 2, elements: 2, largest: Number.NaN } },
  ],
  [
    'sign of a zero',
    ({ graph: g }) => {
      g.initializer[0] = floats('w', [4, 4], new Float32Array(16));
    },
    { kind: 'tensor', where: 'w' },
  ],
  [
    'large integer',
    ({ graph: g }) => {
      g.initializer[1] = ints('big', 2 ** 40 + 1);
    },
    { kind: 'tensor', where: 'big', values: { changed: 1, elements: 1, largest: 1 } },
  ],
  [
    'values that are gone',
    ({ graph: g }) => {
      g.initializer[2].rawData = undefined;
    },
    { kind: 'tensor', where: 's', detail: 'values -> no values' },
  ],
  [
    'place of a sparse value',
    ({ graph: g }) => {
      g.sparseInitializer![0].indices = ints('', 0, 2);
    },
    { kind: 'tensor', where: 'sparse (sparse indices)' },
  ],
];

test.each(cases)('%s', async (_, change, expected) => {
  const found = await differences(change);
  expect(found).toHaveLength(1);
  expect(found[0]).toMatchObject(expected);
});

test('what is added or removed is named once', async () => {
  const found = await differences(({ graph: g }) => {
    g.initializer.push(weight('more', [2]));
    g.node.splice(1, 1);
    g.node[1].attribute[0].g!.node[0].input[0] = 'h';
  });
  expect(found.map(({ kind, where, detail }) => [kind, where, detail])).toEqual([
    ['node', 'r', 'removed'],
    ['node', 'p.then_branch/t', 'inputs r, inner -> h, inner'],
    ['tensor', 'more', 'added'],
  ]);
});

test('a tensor of a type that we do not know is compared by its bytes', async () => {
  const strange = (byte: number): ModelProto =>
    model({
      initializer: [{ name: 'w', dims: [1], dataType: 99, rawData: Uint8Array.of(byte) }],
      node: [],
      output: [],
    });
  expect(await diffModels(open(strange(1)), open(strange(1)))).toEqual([]);
  expect(await diffModels(open(strange(1)), open(strange(2)))).toMatchObject([
    { kind: 'tensor', where: 'w' },
  ]);
});

test('edits in memory count', async () => {
  const [a, b] = [new Model(base()), new Model(base())];
  const s = b.proto.graph!.initializer[2];
  b.edits.set(s, (raw) => raw.map((byte, i) => (i < 4 ? 0 : byte)));
  expect(await diffModels(a, b)).toMatchObject([
    { where: 's', values: { changed: 1, largest: 1 } },
  ]);
});
