import fc from 'fast-check';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { Graph } from '../../src/graph/graph.js';
import { findLinearLayers } from '../../src/graph/linear-layers.js';
import { cutIntoSegments, extractPart, type Segment } from '../../src/graph/segments.js';
import {
  dtypeCode,
  encodeModel,
  type ModelProto,
  type NodeProto,
  readModel,
} from '../../src/onnx/index.js';
import { realModels } from '../onnx/models.js';
import { inRepository } from '../support/cli.js';
import { floats, graph, ints, model, node, value, weight } from '../support/protos.js';
import { distance, runOnce } from '../support/run.js';
import { noiseTensor } from './helpers.js';

const segmentsOf = (m: ModelProto): Segment[] => {
  const g = new Graph(m);
  return cutIntoSegments(
    g,
    findLinearLayers(g).filter(({ skip }) => !skip),
  );
};

const part = (m: ModelProto, { input }: Segment, outputs: string[], dtype = 'float32' as const) =>
  extractPart(
    m,
    input ? [{ name: input, type: { tensorType: { elemType: dtypeCode(dtype) } } }] : [],
    outputs,
  );

const outputNames = (m: ModelProto) => m.graph!.output.map(({ name }) => name ?? '');

/** Runs the parts one after another, each on what the one before put out. */
async function runParts(m: ModelProto, segments: Segment[], feeds: Record<string, Tensor>) {
  let boundary: Record<string, Tensor> = {};
  for (const segment of segments) {
    const outputs = segment.output ? [segment.output] : outputNames(m);
    const one = part(m, segment, outputs);
    const session = await InferenceSession.create(encodeModel(one), {
      graphOptimizationLevel: 'disabled',
      intraOpNumThreads: 1,
    });
    const own = Object.entries({ ...feeds, ...boundary }).filter(([name]) =>
      session.inputNames.includes(name),
    );
    const results = await session.run(Object.fromEntries(own));
    await session.release();
    boundary = results as Record<string, Tensor>;
  }
  return boundary;
}

/** Every layer is in one segment; a part computes the layers of its own segment and no others. */
function expectPartition(m: ModelProto, segments: Segment[]) {
  const g = new Graph(m);
  const all = findLinearLayers(g)
    .filter(({ skip }) => !skip)
    .map(({ name }) => name);
  const covered = segments.flatMap(({ layers }) => layers.map(({ name }) => name));
  expect([...covered].sort()).toEqual([...all].sort());
  for (const [i, segment] of segments.entries()) {
    expect(segment.input).toBe(segments[i - 1]?.output);
    const one = part(m, segment, segment.output ? [segment.output] : outputNames(m));
    const inside = findLinearLayers(new Graph(one))
      .filter(({ skip }) => !skip)
      .map(({ name }) => name);
    expect(inside.sort()).toEqual(segment.layers.map(({ name }) => name).sort());
  }
  expect(segments.at(-1)?.output).toBeUndefined();
}

async function expectSameResult(m: ModelProto, segments: Segment[], feeds: Record<string, Tensor>) {
  const whole = await runOnce(m, feeds);
  const results = await runParts(m, segments, feeds);
  for (const name of outputNames(m))
    expect(distance(whole[name], results[name] as never)).toBeLessThan(1e-6);
}

const real = (name: string) => realModels.find(([n]) => n.includes(name))![1];
const ids = new Tensor(
  'int64',
  BigInt64Array.from({ length: 24 }, (_, i) => BigInt((i * 37) % 512)),
  [2, 12],
);
const models: [string, string, number, () => Record<string, Tensor>][] = [
  [
    'resnet8',
    inRepository('fixtures/resnet8/resnet8.onnx'),
    5,
    () => ({ image: noiseTensor([2, 1, 28, 28]) }),
  ],
  ['gpt-moby', inRepository('fixtures/gpt-moby/gpt-moby.onnx'), 11, () => ({ input_ids: ids })],
  [
    'the PP-OCR classifier',
    real('mobile_v2.0_cls'),
    21,
    () => ({ x: noiseTensor([1, 3, 48, 192]) }),
  ],
  [
    'Silero VAD',
    real('silero_vad_v5'),
    1,
    () => ({
      input: noiseTensor([1, 512]),
      state: noiseTensor([2, 1, 128]),
      sr: new Tensor('int64', BigInt64Array.of(16000n), []),
    }),
  ],
];

describe.each(models)('%s', (_, path, count, feeds) => {
  test('is cut where single activations part it; the parts in turn give what the whole gives', async () => {
    const { proto } = await readModel(path);
    const segments = segmentsOf(proto);
    expect(segments.length).toBe(count);
    expectPartition(proto, segments);
    await expectSameResult(proto, segments, feeds());
  });
});

describe('cut points', () => {
  const net = (nodes: NodeProto[], more: Partial<ModelProto['graph']> = {}): ModelProto =>
    model({
      input: [value('x', ['n', 4]), value('m', ['n', 4])],
      initializer: ['u', 'v', 'w'].map((name) => weight(name, [4, 4])),
      node: nodes,
      output: [value('y', ['n', 4])],
      ...more,
    });
  const boundaries = (m: ModelProto) => segmentsOf(m).map(({ output }) => output);
  const product = (x: string, w: string, y: string) => node('MatMul', [x, w], [y], {}, { name: y });

  test('lie between layers, as late as they can', () => {
    expect(
      boundaries(
        net([
          product('x', 'u', 'a'),
          node('Relu', ['a'], ['b']),
          product('b', 'v', 'c'),
          node('Relu', ['c'], ['y']),
        ]),
      ),
    ).toEqual(['b', undefined]);
  });

  test('do not lie under a residual connection', () => {
    const m = net([
      product('x', 'u', 'a'),
      product('a', 'v', 'b'),
      node('Add', ['a', 'b'], ['c']),
      product('c', 'w', 'y'),
    ]);
    expect(boundaries(m)).toEqual(['a', 'c', undefined]);
    expect(segmentsOf(m).map(({ layers }) => layers.length)).toEqual([1, 1, 1]);
  });

  test('are not held up by what nothing reads any more', () => {
    const m = net([
      node('Dropout', ['x'], ['d', 'dropped']),
      product('d', 'u', 'a'),
      node('Dropout', ['a'], ['b', 'mask']),
      node('Relu', ['b'], ['early']),
      product('b', 'v', 'c'),
      product('c', 'w', 'y'),
    ]);
    m.graph!.output.push({ name: 'early' });
    expect(boundaries(m)).toEqual(['b', 'c', undefined]);
  });

  test('do not lie between parallel layers', () => {
    expect(
      boundaries(
        net([
          product('x', 'u', 'a'),
          product('a', 'v', 'b'),
          product('a', 'w', 'c'),
          node('Add', ['b', 'c'], ['y']),
        ]),
      ),
    ).toEqual(['a', undefined]);
  });

  test('do not heed what passes no layer', () => {
    const m = net([
      node('Mul', ['x', 'm'], ['mask']),
      product('x', 'u', 'a'),
      node('Mul', ['a', 'mask'], ['b']),
      product('b', 'v', 'c'),
      node('Mul', ['c', 'mask'], ['y']),
    ]);
    expect(boundaries(m)).toEqual(['b', undefined]);
    expectPartition(m, segmentsOf(m));
  });

  test('heed what a body captures', () => {
    const m = net(
      [
        product('x', 'u', 'a'),
        product('a', 'v', 'b'),
        node('If', ['flag'], ['y'], {
          then_branch: graph({ node: [node('Add', ['a', 'b'], ['s'])], output: [{ name: 's' }] }),
          else_branch: graph({ node: [product('b', 'w', 't')], output: [{ name: 't' }] }),
        }),
      ],
      { input: [value('x', ['n', 4]), value('flag', [], 'bool')] },
    );
    // Both a and b are needed by the If, whose body holds the third layer.
    expect(boundaries(m)).toEqual(['a', undefined]);
    expect(segmentsOf(m).map(({ layers }) => layers.map(({ name }) => name))).toEqual([
      ['a'],
      ['b', 't'],
    ]);
  });

  test('a graph of unsorted nodes is cut as if it were sorted', () => {
    const nodes = [
      product('x', 'u', 'a'),
      node('Relu', ['a'], ['b']),
      product('b', 'v', 'c'),
      product('c', 'w', 'y'),
    ];
    expect(boundaries(net([...nodes].reverse()))).toEqual(boundaries(net(nodes)));
  });

  test('without layers there is one empty segment', () => {
    expect(segmentsOf(net([node('Relu', ['x'], ['y'])]))).toEqual([{ layers: [] }]);
  });

  test('property: parts of random networks compose to the whole', async () => {
    // Each step: a layer, a sum of two earlier values, or an activation; reading any of the last three.
    const step = fc.record({
      kind: fc.constantFrom('layer', 'add', 'relu'),
      a: fc.nat(2),
      b: fc.nat(2),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 10 }), async (steps) => {
        const values = ['x'];
        const at = (back: number) => values[Math.max(0, values.length - 1 - back)];
        const nodes = steps.map(({ kind, a, b }, i) => {
          const inputs =
            kind === 'layer' ? [at(a), `w${i % 3}`] : kind === 'add' ? [at(a), at(b)] : [at(a)];
          const y = i === steps.length - 1 ? 'y' : `v${i}`;
          values.push(y);
          return node(
            { layer: 'MatMul', add: 'Add', relu: 'Relu' }[kind]!,
            inputs,
            [y],
            {},
            { name: y },
          );
        });
        const m = model({
          input: [value('x', ['n', 4])],
          initializer: [0, 1, 2].map((i) => weight(`w${i}`, [4, 4])),
          node: nodes,
          output: [value('y', ['n', 4])],
        });
        const segments = segmentsOf(m);
        await expectSameResult(m, segments, { x: noiseTensor([2, 4]) });
      }),
      { numRuns: 30 },
    );
  });
});

describe('extractPart', () => {
  const m = model(
    {
      input: [value('x', [2, 4]), value('spare', [2, 4]), value('u', [4, 4])],
      initializer: [weight('u', [4, 4]), weight('v', [4, 4]), weight('far', [4])],
      sparseInitializer: [
        { values: floats('s', [2], Float32Array.of(1, 2)), indices: ints('', 0, 2), dims: [4] },
      ],
      node: [
        node('MatMul', ['x', 'u'], ['a'], {}, { name: 'first' }),
        node('Add', ['a', 's'], ['b'], {}, { name: 'second' }),
        node('MatMul', ['b', 'v'], ['y'], {}, { name: 'third' }),
        node('Add', ['x', 'far'], ['z'], {}, { name: 'aside' }),
      ],
      output: [value('y', [2, 4]), value('z', [2, 4])],
    },
    { irVersion: 3 },
  );
  const names = (list: { name?: string }[]) => list.map(({ name }) => name);

  test('takes only what the outputs need', () => {
    const { graph: g, irVersion } = extractPart(m, [], ['b']);
    expect(names(g!.node)).toEqual(['first', 'second']);
    expect(names(g!.initializer)).toEqual(['u']);
    expect(names(g!.input)).toEqual(['x']); // what an initializer provides need not be fed
    expect(g!.sparseInitializer!.length).toBe(1);
    expect(irVersion).toBe(4);
  });

  test('starts at given values', () => {
    const { graph: g } = extractPart(m, [{ name: 'b' }], ['y']);
    expect(names(g!.node)).toEqual(['third']);
    expect(names(g!.input)).toEqual(['b']);
    expect(g!.sparseInitializer).toEqual([]);
  });

  test('shares nodes and tensors with the original, which stays as it is', () => {
    const before = structuredClone(m);
    const { graph: g } = extractPart(m, [], ['y']);
    expect(g!.node[0]).toBe(m.graph!.node[0]);
    expect(g!.initializer[0]).toBe(m.graph!.initializer[0]);
    expect(m).toEqual(before);
  });

  test('can put out an input', async () => {
    const { graph: g } = extractPart(m, [], ['x']);
    expect(names(g!.node)).toEqual([]);
    expect(names(g!.input)).toEqual(['x']);
  });

  test('of a long chain takes no quadratic time', () => {
    const n = 100_000;
    const chain = Array.from({ length: n }, (_, i) =>
      node('Relu', [i ? `v${i - 1}` : 'x'], [`v${i}`]),
    );
    const long = model({ input: [value('x', [1])], node: chain, output: [{ name: `v${n - 1}` }] });
    const { graph: g } = extractPart(long, [], [`v${n - 1}`]);
    expect(g!.node.length).toBe(n);
    expect(g!.node[0]).toBe(chain[0]);
  });
});
