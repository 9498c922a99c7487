import fc from 'fast-check';
import { Tensor } from 'onnxruntime-node';
import type { TensorData } from '../../src/data/index.js';
import { Graph } from '../../src/graph/graph.js';
import { findLinearLayers, type LinearLayer } from '../../src/graph/linear-layers.js';
import { extractPart } from '../../src/graph/segments.js';
import {
  type DType,
  dtypeCode,
  encodeModel,
  type ModelProto,
  parseModel,
  readModel,
} from '../../src/onnx/index.js';
import {
  instrument,
  type Probe,
  pickInput,
  readReduction,
  validInput,
} from '../../src/runtime/instrument.js';
import { type Feeds, withSession } from '../../src/runtime/session.js';
import { noise, noiseTensor } from '../graph/helpers.js';
import { inRepository } from '../support/cli.js';
import { graph, model, node, value, weight } from '../support/protos.js';
import { runOnce, withOutputs } from '../support/run.js';
import { expectReduction, probeOf, reduceRows, tokenRows } from './brute-force.js';

const picks = [0.1, 0.5, 0.99];
const pickTensor: TensorData = {
  dtype: 'float32',
  dims: [picks.length],
  data: Float32Array.from(picks),
};

const toData = ({ type, dims, data }: Tensor): TensorData => ({
  dtype: type as DType as TensorData['dtype'],
  dims: [...dims],
  data: data as TensorData['data'],
});

/** Runs the instrumented model in a session of ours; reductions by probe. */
async function reductions(
  m: ModelProto,
  probes: Probe[],
  feeds: Record<string, Tensor>,
  padded?: { probes: Set<Probe>; valid: number },
) {
  const own: Feeds = Object.fromEntries(
    Object.entries(feeds).map(([name, t]) => [name, toData(t)]),
  );
  const valid = padded && {
    [validInput]: {
      dtype: 'int64' as const,
      dims: [padded.valid],
      data: BigInt64Array.from({ length: padded.valid }, (_, i) => BigInt(i)),
    },
  };
  const instrumented = instrument(m, probes, { padded: padded?.probes });
  const outputs = await withSession(encodeModel(instrumented), { threads: 1 }, (session) =>
    session.run({ ...own, ...valid, [pickInput]: pickTensor }),
  );
  return probes.map((_, i) => readReduction(outputs, i));
}

const layersOf = (m: ModelProto): LinearLayer[] =>
  findLinearLayers(new Graph(m)).filter(({ skip }) => !skip);

/** Compares the reductions of layers in the main graph with what their activations say. */
async function expectBruteForce(m: ModelProto, feeds: Record<string, Tensor>, tolerance?: number) {
  const probes = layersOf(m).map((layer) => probeOf(layer));
  const names = [...new Set(probes.map((probe) => probe.value))];
  const outputs = m.graph!.output.map(({ name }) => name);
  const exposed = withOutputs(
    m,
    names.filter((name) => !outputs.includes(name)),
  );
  const activations = await runOnce(exposed, feeds);
  const found = await reductions(m, probes, feeds);
  expect(found.length).toBeGreaterThan(0);
  for (const [i, probe] of probes.entries()) {
    const rows = tokenRows(activations[probe.value], probe.layout);
    expectReduction(found[i], reduceRows(rows, probe.groups, picks), tolerance);
  }
}

describe('reductions are what plain sums over the activations give', () => {
  test('resnet8', async () => {
    const { proto } = await readModel(inRepository('fixtures/resnet8/resnet8.onnx'));
    await expectBruteForce(proto, { image: noiseTensor([1, 1, 28, 28]) }, 1e-4);
  });

  test('gpt-moby', async () => {
    const { proto } = await readModel(inRepository('fixtures/gpt-moby/gpt-moby.onnx'));
    const ids = BigInt64Array.from({ length: 10 }, (_, i) => BigInt((i * 37) % 512));
    await expectBruteForce(proto, { input_ids: new Tensor('int64', ids, [1, 10]) }, 1e-4);
  });

  const spatial = fc.integer({ min: 1, max: 3 }).chain((rank) => {
    const per = <T>(arbitrary: fc.Arbitrary<T>, n = rank) =>
      fc.array(arbitrary, { minLength: n, maxLength: n });
    return fc.record({
      batch: fc.integer({ min: 1, max: 2 }),
      size: per(fc.integer({ min: 5, max: rank > 2 ? 6 : 8 })),
      kernel: per(fc.integer({ min: 1, max: 3 })),
      strides: per(fc.integer({ min: 1, max: 2 })),
      dilations: per(fc.integer({ min: 1, max: 2 })),
      pads: per(fc.integer({ min: 0, max: 2 }), 2 * rank),
      auto: fc.constantFrom('NOTSET', 'VALID', 'SAME_UPPER', 'SAME_LOWER'),
      groups: fc.constantFrom(1, 2, 3),
      perGroup: fc.constantFrom(2, 3),
      plain: fc.boolean(),
    });
  });

  test('property: convolutions of any geometry', () =>
    fc.assert(
      fc.asyncProperty(
        spatial,
        async ({
          batch,
          size,
          kernel,
          strides,
          dilations,
          pads,
          auto,
          groups,
          perGroup,
          plain,
        }) => {
          const same = auto.startsWith('SAME');
          const attributes = {
            group: groups,
            ...(!plain && {
              kernel_shape: kernel,
              strides,
              dilations: same ? dilations.map(() => 1) : dilations,
            }),
            ...(!plain && (auto === 'NOTSET' ? { pads } : { auto_pad: auto })),
          };
          const w = weight('w', [2 * groups, perGroup, ...kernel]);
          const dims = [batch, groups * perGroup, ...size];
          const m = model({
            input: [value('x', dims)],
            initializer: [w],
            node: [node('Conv', ['x', 'w'], ['y'], attributes)],
            output: [{ name: 'y' }],
          });
          const x = noiseTensor(dims);
          await expectBruteForce(m, { x });

          // And those rows are what the convolution multiplies.
          const { y } = await runOnce(m, { x });
          const [layer] = layersOf(m);
          const rows = tokenRows({ dims, data: x.data as Float32Array }, layer.layout!);
          const { cols } = layer.weight!;
          const values = new Float32Array(
            w.rawData!.buffer,
            w.rawData!.byteOffset,
            2 * groups * cols,
          );
          const positions = rows.length / batch;
          for (let o = 0; o < 2 * groups; o++) {
            const own = Math.floor(o / 2) * cols;
            let sum = 0;
            for (let c = 0; c < cols; c++) sum += rows[0][own + c] * values[o * cols + c];
            expect(y.data[o * positions]).toBeCloseTo(sum, 4);
          }
        },
      ),
      { numRuns: 60 },
    ));

  test.each([[[3, 5]], [[2, 3, 5]], [[2, 2, 3, 5]]])('features on the last axis of %j', (dims) =>
    expectBruteForce(
      model({
        input: [value('x', dims)],
        initializer: [weight('w', [5, 4])],
        node: [node('MatMul', ['x', 'w'], ['y'])],
        output: [{ name: 'y' }],
      }),
      { x: noiseTensor(dims) },
    ),
  );

  test.each([[[5, 3]], [[2, 5, 3]], [[2, 2, 5, 3]]])(
    'features on the last axis but one of %j',
    (dims) =>
      expectBruteForce(
        model({
          input: [value('x', dims)],
          initializer: [weight('w', [4, 5])],
          node: [node('MatMul', ['w', 'x'], ['y'])],
          output: [{ name: 'y' }],
        }),
        { x: noiseTensor(dims) },
      ),
  );

  test.each([0, 1])('Gemm with transA %d', (transA) =>
    expectBruteForce(
      model({
        input: [value('x', transA ? [5, 3] : [3, 5])],
        initializer: [weight('w', [5, 4])],
        node: [node('Gemm', ['x', 'w'], ['y'], { transA })],
        output: [{ name: 'y' }],
      }),
      { x: noiseTensor(transA ? [5, 3] : [3, 5]) },
    ),
  );

  test('two layers on one activation, and one probe without Gram matrix', async () => {
    const m = model({
      input: [value('x', [3, 5])],
      initializer: [weight('v', [5, 2]), weight('w', [5, 4])],
      node: [node('MatMul', ['x', 'v'], ['a']), node('MatMul', ['x', 'w'], ['b'])],
      output: [{ name: 'a' }, { name: 'b' }],
    });
    const [one, other] = layersOf(m);
    const x = noiseTensor([3, 5]);
    const [a, b] = await reductions(m, [probeOf(one), probeOf(other, false)], { x });
    expect(a?.gram?.length).toBe(25);
    expect(b?.gram).toBeUndefined();
    expect(b?.sum).toEqual(a?.sum);
  });

  test('a large mean does not drown the variance', async () => {
    const m = model({
      input: [value('x', [1000, 2])],
      initializer: [weight('w', [2, 2])],
      node: [node('MatMul', ['x', 'w'], ['y'])],
      output: [{ name: 'y' }],
    });
    const x = noise(2000).map((v, i) => (i % 2 ? v : 1e4 + v));
    const rows = tokenRows({ dims: [1000, 2], data: x }, { kind: 'axis', axis: -1 });
    const [found] = await reductions(
      m,
      layersOf(m).map((l) => probeOf(l)),
      { x: new Tensor('float32', x, [1000, 2]) },
    );
    const expected = reduceRows(rows, 1, picks).centredSquares;
    for (const c of [0, 1]) expect(found!.centredSquares[c] / expected[c]).toBeCloseTo(1, 3);
  });
});

describe('opsets', () => {
  /** A convolution, a product with the constant left and one with it right, in forms that every opset has. */
  const net = (opset: number): ModelProto =>
    model(
      {
        input: [value('x', [2, 3, 6])],
        initializer: [weight('c', [4, 3, 3]), weight('l', [5, 4]), weight('r', [4, 7])],
        node: [
          node('Conv', ['x', 'c'], ['a'], { kernel_shape: [3] }),
          node('MatMul', ['l', 'a'], ['b']),
          node('MatMul', ['b', 'r'], ['y']),
        ],
        output: [value('y', [2, 5, 7])],
      },
      { irVersion: opset < 9 ? 3 : 8, opsetImport: [{ version: opset }] },
    );

  test.each([7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 21, 22])('%d', (opset) =>
    expectBruteForce(net(opset), { x: noiseTensor([2, 3, 6]) }),
  );

  test('the standard domain spelt out', () =>
    expectBruteForce(
      { ...net(17), opsetImport: [{ domain: 'ai.onnx', version: 17 }] },
      { x: noiseTensor([2, 3, 6]) },
    ));
});

describe('types', () => {
  test.each(['float16', 'float64'] as DType[])('activations of %s', async (dtype) => {
    const to = dtypeCode(dtype);
    const m = model({
      input: [value('x', [3, 5])],
      initializer: [weight('w', [5, 4])],
      node: [
        node('Cast', ['x'], ['a'], { to }),
        node('Cast', ['w'], ['v'], { to }),
        node('MatMul', ['a', 'v'], ['y']),
      ],
      output: [{ name: 'y' }],
    });
    const x = noiseTensor([3, 5]);
    const [found] = await reductions(
      m,
      layersOf(m).map((l) => probeOf(l)),
      { x },
    );
    const rows = tokenRows(
      { dims: [3, 5], data: x.data as Float32Array },
      { kind: 'axis', axis: -1 },
    );
    expectReduction(found, reduceRows(rows, 1, picks), dtype === 'float16' ? 1e-2 : 1e-5);
  });
});

describe('bodies', () => {
  /** if flag: (if deep: x·a, else x·b) else (-x)·c; the layers are named after their weights. */
  const product = (x: string, w: string, y: string) => node('MatMul', [x, w], [y], {}, { name: w });
  const nested = (opset = 17): ModelProto =>
    model(
      {
        input: [value('x', [3, 4]), value('flag', [], 'bool'), value('deep', [], 'bool')],
        initializer: [weight('outer', [4, 4])],
        node: [
          product('x', 'outer', 'h'),
          node('If', ['flag'], ['y'], {
            then_branch: graph({
              node: [
                node('Relu', ['h'], ['r']),
                node('If', ['deep'], ['i'], {
                  then_branch: graph({
                    initializer: [weight('a', [4, 2])],
                    node: [product('r', 'a', 't')],
                    output: [{ name: 't' }],
                  }),
                  else_branch: graph({
                    initializer: [weight('b', [4, 2])],
                    node: [product('h', 'b', 'e')],
                    output: [{ name: 'e' }],
                  }),
                }),
              ],
              output: [{ name: 'i' }],
            }),
            else_branch: graph({
              initializer: [weight('c', [4, 2])],
              node: [node('Neg', ['h'], ['n']), product('n', 'c', 'z')],
              output: [{ name: 'z' }],
            }),
          }),
        ],
        output: [value('y', [3, 2])],
      },
      { opsetImport: [{ version: opset }] },
    );
  const bool = (on: boolean) => new Tensor('bool', [on], []);

  test.each([
    [true, true, 17, ['outer', 'a']],
    [true, false, 17, ['outer', 'b']],
    [false, true, 17, ['outer', 'c']],
    [false, false, 17, ['outer', 'c']],
    [true, true, 9, ['outer', 'a']],
    [false, true, 9, ['outer', 'c']],
  ])(
    'flag %s, deep %s, opset %d: only the layers that run are seen',
    async (flag, deep, opset, seen) => {
      const m = nested(opset);
      const layers = layersOf(m);
      const x = noiseTensor([3, 4]);
      const feeds = { x, flag: bool(flag), deep: bool(deep) };
      const found = await reductions(
        m,
        layers.map((l) => probeOf(l)),
        feeds,
      );
      expect(layers.flatMap(({ name }, i) => (found[i] ? name : []))).toEqual(seen);

      const { h } = await runOnce(withOutputs(m, ['h']), feeds);
      const seenBy: Record<string, (v: number) => number> = {
        a: (v) => Math.max(0, v),
        b: (v) => v,
        c: (v) => -v,
      };
      const [, inner] = seen;
      const activation = {
        dims: h.dims,
        data: Float32Array.from(h.data as Float32Array, seenBy[inner]),
      };
      const at = layers.findIndex(({ name }) => name === inner);
      expectReduction(found[at], reduceRows(tokenRows(activation, layers[at].layout!), 1, picks));
    },
  );

  test('the original is not changed', async () => {
    const m = nested();
    const before = structuredClone(m);
    instrument(
      m,
      layersOf(m).map((l) => probeOf(l)),
    );
    expect(m).toEqual(before);
  });

  test('tensors are shared with the original', () => {
    const m = nested();
    const copy = instrument(
      m,
      layersOf(m).map((l) => probeOf(l)),
    );
    expect(copy.graph!.initializer[0]).toBe(m.graph!.initializer[0]);
  });
});

describe('padding', () => {
  const m = model({
    input: [value('x', [1, 6, 4])],
    initializer: [weight('v', [4, 4]), weight('w', [4, 2])],
    node: [
      node('MatMul', ['x', 'v'], ['h']),
      node('ReduceMean', ['h'], ['pooled'], { axes: [1], keepdims: 0 }),
      node('MatMul', ['pooled', 'w'], ['y']),
    ],
    output: [{ name: 'y' }],
  });
  const x = noiseTensor([1, 6, 4]);

  test('only valid rows of padded probes count', async () => {
    const probes = layersOf(m).map((l) => probeOf(l));
    const [tokens, pooled] = await reductions(
      m,
      probes,
      { x },
      { probes: new Set([probes[0]]), valid: 4 },
    );
    const rows = tokenRows({ dims: [1, 6, 4], data: x.data as Float32Array }, probes[0].layout);
    expectReduction(tokens, reduceRows(rows.slice(0, 4), 1, picks));
    expect(pooled?.tokens).toBe(1);
  });
});

test.each([
  ['MatMul', ['n', 4], [0, 4], node('MatMul', ['x', 'w'], ['y']), [4, 2]],
  ['constant on the left', ['n', 4, 3], [0, 4, 3], node('MatMul', ['w', 'x'], ['y']), [2, 4]],
  [
    'convolution',
    ['n', 4, 5, 5],
    [0, 4, 5, 5],
    node('Conv', ['x', 'w'], ['y'], { group: 2 }),
    [6, 2, 3, 3],
  ],
  [
    'pointwise convolution',
    ['n', 4, 5, 5],
    [0, 4, 5, 5],
    node('Conv', ['x', 'w'], ['y']),
    [6, 4, 1, 1],
  ],
] as const)(
  '%s: an activation without rows is as good as one that was not executed',
  async (_, dims, given, layer, shape) => {
    const m = model({
      input: [value('x', [...dims])],
      initializer: [weight('w', [...shape])],
      node: [layer],
      output: [{ name: 'y' }],
    });
    const probes = layersOf(m).map((l) => probeOf(l));
    // The layer itself is not run: not every kernel of the runtime takes no rows.
    const part = extractPart(m, [], ['x']);
    const [found] = await reductions(part, probes, { x: noiseTensor([...given]) });
    expect(found).toBeUndefined();
  },
);

test('a kernel whose patches would fill the memory is refused', () => {
  const m = model({
    input: [value('x', [1, 1, 200_000])],
    initializer: [weight('w', [1, 1, 10_000])],
    node: [node('Conv', ['x', 'w'], ['y'], {}, { name: 'filter' })],
    output: [{ name: 'y' }],
  });
  const probes = layersOf(m).map((l) => probeOf(l));
  const refusal = expect.objectContaining({
    exitCode: 5,
    detail: expect.objectContaining({ where: 'node filter' }),
  });
  expect(() => instrument(m, probes)).toThrow(refusal);
});

test('the instrumented model is valid in the file format, too', async () => {
  const { proto } = await readModel(inRepository('fixtures/resnet8/resnet8.onnx'));
  const copy = instrument(
    proto,
    layersOf(proto).map((l) => probeOf(l)),
  );
  expect(parseModel(encodeModel(copy)).proto.graph!.node.length).toBe(copy.graph!.node.length);
});
