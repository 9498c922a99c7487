import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { opName } from '../../../../src/graph/nodes.js';
import { checkKernels } from '../../../../src/methods/ternarize/formats/check.js';
import type { StoredCodes } from '../../../../src/methods/ternarize/formats/layers.js';
import {
  type Model,
  parseModel,
  readTensorBytes,
  serializeModel,
  tensorInfo,
} from '../../../../src/onnx/index.js';
import { type SessionOptions, withSession } from '../../../../src/runtime/session.js';
import { floats, node } from '../../../support/protos.js';
import {
  float32,
  network,
  noise,
  opTypes,
  outputOf,
  stored,
} from '../../compress/formats/helpers.js';
import {
  always,
  archived,
  blocks2,
  blocks4,
  formats,
  matMul,
  product,
  relativeError,
  type Store,
  someCodes,
} from './helpers.js';

const levels = ['all', 'basic', 'disabled'] as const;

const attributes = ({ proto }: Model) =>
  (proto.graph?.node ?? [])
    .filter(({ opType }) => opType === 'MatMulNBits')
    .map(({ attribute }) => Object.fromEntries(attribute.map(({ name, i }) => [name, Number(i)])));

test('two bits come with int8 activations, in blocks that have fast kernels', async () => {
  const sizes = fc.record({
    rows: fc.integer({ min: 1, max: 12 }),
    cols: fc.integer({ min: 1, max: 700 }),
    group: fc.oneof(fc.integer({ min: 1, max: 700 }), fc.constantFrom(16, 32, 64, 96, 128, 256)),
    store: fc.constantFrom(blocks2, archived),
    low: fc.constantFrom(-1, -2),
  });
  await fc.assert(
    fc.asyncProperty(sizes, async ({ rows, cols, group, store, low }) => {
      const model = matMul(rows, cols, 17);
      const [report] = await store(model, always({ codes: someCodes(rows, cols, group, { low }) }));
      const made = attributes(model);
      expect(made).toHaveLength(report.kernel === 'MatMulNBits' ? 1 : 0);
      if (made.length === 0) expect(report.reason).toContain('blocks of 32');
      for (const { bits, accuracy_level, block_size } of made) {
        expect([bits, accuracy_level]).toEqual([2, 4]);
        expect([32, 64, 128]).toContain(block_size);
      }
    }),
  );
});

describe.each(formats)('%s', (name, { store, error }) => {
  test.each([1, 6, 7, 9, 10, 11, 17, 129])(
    '%p outputs: right, no integers dequantized',
    async (rows) => {
      for (const cols of [64, 200]) {
        const coded = { codes: someCodes(rows, cols), bias: noise(rows, 9) };
        const model = matMul(rows, cols, 17);
        await store(model, always(coded));
        expect(opTypes(model)).not.toContain('DequantizeLinear');
        const types = (model.proto.graph?.initializer ?? []).map((t) => tensorInfo(t).dtype);
        for (const type of types) expect(type).not.toMatch(/int[24]$/);
        const x = float32([17, cols]);
        const wanted = product(x.data as Float32Array, coded);
        for (const level of levels)
          expect(relativeError(await outputOf(model, { x }, level), wanted)).toBeLessThan(error);
      }
    },
  );

  const behind: [string, string[]][] = [
    ['Relu', []],
    ['Clip', ['low', 'high']],
  ];
  test.each(behind)(
    '%s behind a layer, and read by the next, keeps its kernel',
    async (op, limits) => {
      for (const transB of [undefined, 0, 1]) {
        const layer = (x: string, w: string, y: string) =>
          transB === undefined
            ? [node('MatMul', [x, w], [`${y}0`]), node('Add', [`${y}0`, 'b'], [y])]
            : [node('Gemm', [x, w, 'b'], [y], { transB })];
        const build = () =>
          network(
            [
              ...layer('x', 'w', 'h'),
              node(op, ['h', ...limits], ['r']),
              ...layer('r', 'v', 'k'),
              node(op, ['k', ...limits], ['y']),
            ],
            [
              ...[stored('w', [64, 64]), stored('v', [64, 64], 3), stored('b', [64])],
              ...[
                floats('low', [], Float32Array.of(0)),
                floats('high', [], Float32Array.of(6)),
              ].filter(() => limits.length > 0),
            ],
            [3, 64],
          );
        const model = build();
        const reports = await store(model, always({ codes: someCodes(64, 64) }));
        expect(reports.map(({ status }) => status)).toEqual(['changed', 'changed']);
        const found = await checkKernels(await serializeModel(model), reports);
        // Floats that are stored as they are need no check.
        expect(found).toHaveLength(name === 'float' ? 0 : 2);
        for (const { fast, ops } of found) {
          expect(fast).toBe(true);
          expect(ops).toHaveLength(1);
        }
      }
    },
  );
});

test.each<[string, Store]>([
  ['ort', blocks2],
  ['ort, packed trits', archived],
  ['ort4', blocks4],
])('%s: the domain of MatMulNBits is declared once, and only with it', async (_, store) => {
  const domains = ({ proto }: Model) =>
    proto.opsetImport.flatMap(({ domain, version }) => (domain ? [[domain, Number(version)]] : []));
  const model = matMul(7, 64, 17);
  await store(model, always({ codes: someCodes(7, 64) }));
  expect(domains(model)).toEqual([['com.microsoft', 1]]);

  const declared = matMul(7, 64, 17);
  declared.proto.opsetImport.push({ domain: 'com.microsoft', version: 1 });
  await store(declared, always({ codes: someCodes(7, 64) }));
  expect(domains(declared)).toEqual([['com.microsoft', 1]]);

  const unfit = matMul(7, 100, 17);
  await store(unfit, always({ codes: someCodes(7, 100, 50) }));
  expect(domains(unfit)).toEqual([]);
});

describe('packed trits', () => {
  /** The graph that the runtime makes of a model. */
  async function optimized(model: Model, optimization: SessionOptions['optimization']) {
    const folder = await mkdtemp(join(tmpdir(), 'resect-traps-'));
    try {
      const saveOptimized = join(folder, 'optimized.onnx');
      const bytes = await serializeModel(model);
      await withSession(bytes, { threads: 1, optimization, saveOptimized }, async () => {});
      return parseModel(await readFile(saveOptimized));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  const blocksOf = async (model: Model) => {
    const { node: nodes = [], initializer = [] } = model.proto.graph ?? {};
    const found = nodes.find(({ opType }) => opType === 'MatMulNBits');
    const weight = initializer.find(({ name }) => name === found?.input[1]);
    return weight && { ...tensorInfo(weight), bytes: [...(await readTensorBytes(model, weight))] };
  };

  test.each([
    [7, 33, 33],
    [9, 130, 32],
    [17, 1000, 128],
    [129, 320, 64],
  ])('[%p, %p] in groups of %p: as the plain form at every level', async (rows, cols, group) => {
    const coded = { codes: someCodes(rows, cols, group), bias: noise(rows, 9) };
    const [plain, packed] = [matMul(rows, cols, 17), matMul(rows, cols, 17)];
    await blocks2(plain, always(coded));
    const reports = await archived(packed, always(coded));
    const x = float32([17, cols]);
    const wanted = product(x.data as Float32Array, coded);
    for (const level of levels) {
      const [a, b] = [await outputOf(plain, { x }, level), await outputOf(packed, { x }, level)];
      expect(relativeError(b, wanted)).toBeLessThan(1e-2);
      // Where nothing is folded the weight is no constant, and the runtime computes in floats.
      if (level === 'disabled') expect(relativeError(b, a)).toBeLessThan(1e-2);
      else expect(b).toEqual(a);
    }
    const { shape, bytes, dtype } = (await blocksOf(plain)) ?? {};
    for (const level of ['all', 'basic'] as const) {
      const made = await optimized(packed, level);
      expect((made.proto.graph?.node ?? []).map(opName)).toEqual(['com.microsoft.MatMulNBits']);
      expect(await blocksOf(made)).toMatchObject({ shape, bytes, dtype });
    }
    const unfolded = await checkKernels(await serializeModel(packed), reports, {
      optimization: 'disabled',
    });
    expect(unfolded).toMatchObject([{ fast: false, reason: expect.stringMatching(/each run/) }]);
  });

  test('scales are stored, whatever shares them: the kernels leave out others without a word', async () => {
    for (const group of [32, 256, 1000]) {
      const model = matMul(7, 1000, 17);
      await archived(model, always({ codes: someCodes(7, 1000, group % 32 ? 1000 : group) }));
      const { node: nodes = [], initializer = [] } = model.proto.graph ?? {};
      const made = nodes.find(({ opType }) => opType === 'MatMulNBits');
      const stored = initializer.map(({ name }) => name);
      expect(stored).toContain(made?.input[2]);
      expect(stored).not.toContain(made?.input[1]);
    }
  });

  test('what is not ternary is stored as without them', async () => {
    const wide = { ...someCodes(7, 64), codes: noise(7 * 64).map((v) => Math.round(7 * v)) };
    const four = { ...wide, codes: Int8Array.from(wide.codes) };
    for (const coded of [
      { codes: someCodes(7, 64, 64, { low: -2 }) },
      { codes: four, bits: 4 as const },
    ]) {
      const [plain, packed] = [matMul(7, 64, 17), matMul(7, 64, 17)];
      await blocks2(plain, always(coded));
      await archived(packed, always(coded));
      expect(await serializeModel(packed)).toEqual(await serializeModel(plain));
    }
  });
});

describe('a slow graph is told', () => {
  const x = { kind: 'Conv', dims: [1, 4, 5, 5], shape: [8, 4, 3, 3] };
  const dequantized = () => {
    const codes = someCodes(8, 36);
    const int8 = {
      name: 'q',
      dims: x.shape,
      dataType: 3,
      rawData: new Uint8Array(codes.codes.buffer),
    };
    return network(
      [
        node('DequantizeLinear', ['q', 's'], ['w'], { axis: 0 }),
        node('Conv', ['x', 'w'], ['y'], {}, { name: 'layer' }),
      ],
      [{ ...stored('q', [1]), ...int8, floatData: [] }, floats('s', [8], codes.scales)],
      x.dims,
    );
  };
  const report = (kernel: StoredCodes['kernel'], weight: string): StoredCodes => ({
    ...{ name: 'layer', op: 'Conv', status: 'changed', kernel },
    values: { codes: weight, weight },
  });

  test('weights that stay behind a DequantizeLinear', async () => {
    const file = await serializeModel(dequantized());
    expect(await checkKernels(file, [report('float', 'q')])).toMatchObject([
      { fast: false, ops: ['DequantizeLinear'], reason: 'its weights are dequantized in each run' },
    ]);
    expect(await checkKernels(file, [report('QLinearConv', 'q')])).toMatchObject([
      { fast: false, reason: 'it is no convolution of integers' },
    ]);
  });

  test.each(['MatMulNBits', 'MatMulInteger', 'QLinearConv'] as const)(
    'a weight for %s that nothing reads any more',
    async (kernel) => {
      const file = await serializeModel(dequantized());
      expect(await checkKernels(file, [report(kernel, 'gone')])).toMatchObject([{ fast: false }]);
    },
  );

  test('MatMulNBits that computes in floats, or in blocks without a kernel', async () => {
    for (const [attribute, value] of [
      ['accuracy_level', 0],
      ['accuracy_level', 1],
      ['block_size', 16],
    ] as const) {
      const model = matMul(8, 16, 17);
      const reports = await blocks2(model, always({ codes: someCodes(8, 16) }));
      for (const { opType, attribute: all } of model.proto.graph?.node ?? [])
        for (const a of opType === 'MatMulNBits' ? all : []) if (a.name === attribute) a.i = value;
      if (attribute === 'block_size') {
        const [blocks] =
          model.proto.graph?.initializer.filter(({ dims }) => dims.length === 3) ?? [];
        blocks.dims = [8, 1, 4];
        blocks.rawData = blocks.rawData?.filter((_, i) => i % 8 < 4);
      }
      expect(await checkKernels(await serializeModel(model), reports)).toMatchObject([
        { fast: false, reason: 'its weights become floats in each run' },
      ]);
    }
  });
});
