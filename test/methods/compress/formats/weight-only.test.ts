import { storeRounded } from '../../../../src/methods/compress/formats/fake.js';
import type { WeightFormat } from '../../../../src/methods/compress/formats/layers.js';
import { storeWeightOnly } from '../../../../src/methods/compress/formats/weight-only.js';
import { decode, dtypeOf, type Model, serializeModel } from '../../../../src/onnx/index.js';
import { floats, node } from '../../../support/protos.js';
import {
  even,
  float32,
  initializer,
  largestDifference,
  network,
  noise,
  outputOf,
  product,
  stored,
  valuesOf,
} from './helpers.js';

interface Case {
  op: string;
  weight: number[];
  dims: number[];
  attributes?: Record<string, number>;
  /** The axis with the scales. */
  axis: number;
}

const cases: Case[] = [
  { op: 'Conv', weight: [5, 3, 3, 3], dims: [2, 3, 7, 7], axis: 0 },
  { op: 'Conv', weight: [4, 1, 3, 3], dims: [2, 4, 7, 7], attributes: { group: 4 }, axis: 0 },
  { op: 'ConvTranspose', weight: [3, 5, 2, 2], dims: [2, 3, 4, 4], axis: 1 },
  {
    op: 'ConvTranspose',
    weight: [4, 3, 2, 2],
    dims: [2, 4, 4, 4],
    attributes: { group: 2 },
    axis: 1,
  },
  {
    op: 'ConvTranspose',
    weight: [4, 1, 2, 2],
    dims: [2, 4, 4, 4],
    attributes: { group: 4 },
    axis: 0,
  },
  { op: 'Gemm', weight: [6, 5], dims: [3, 6], axis: 1 },
  { op: 'Gemm', weight: [5, 6], dims: [3, 6], attributes: { transB: 1 }, axis: 0 },
  { op: 'MatMul', weight: [6, 5], dims: [3, 6], axis: 1 },
];

const build = ({ op, weight, dims, attributes }: Case): Model =>
  network([node(op, ['x', 'w'], ['y'], attributes)], [stored('w', weight)], dims);

/** Rounds each slice along `axis` by itself, element by element, in the plainest way. */
function rounded(w: Float32Array, shape: number[], axis: number, bits: number): number[] {
  const inner = product(shape.slice(axis + 1));
  const channel = (k: number) => Math.floor(k / inner) % shape[axis];
  const high = 2 ** (bits - 1) - 1;
  const most = new Array<number>(shape[axis]).fill(0);
  for (const [k, x] of w.entries()) most[channel(k)] = Math.max(most[channel(k)], Math.abs(x));
  return Array.from(w, (x, k) => {
    const scale = Math.fround(most[channel(k)] / high);
    return Math.fround(scale * Math.max(-high, Math.min(high, even(x / scale))));
  });
}

/** The weight as the layer reads it. */
async function readBack(model: Model, feeds: Parameters<typeof valuesOf>[1]): Promise<number[]> {
  const layer = model.proto.graph?.node.at(-1);
  const name = layer?.input[1] ?? '';
  return Array.from((await valuesOf(model, feeds, [name]))[name].data, Number);
}

describe.each(cases)('$op $weight $attributes', (c) => {
  const feeds = { x: float32(c.dims) };
  const w = noise(product(c.weight));

  test.each([2, 3, 4, 5, 7, 8])('in %d bits', async (bits) => {
    const model = build(c);
    const [report] = await storeWeightOnly(model, () => ({ bits }));
    const dtype = bits <= 4 ? 'int4' : 'int8';
    expect(report).toMatchObject({ status: 'changed', bits, dtype, shape: c.weight });
    expect(dtypeOf(initializer(model, 'w_quantized').dataType)).toBe(dtype);
    expect(model.proto.opsetImport[0].version).toBe(bits <= 4 ? 21 : 13);
    expect(model.proto.graph?.initializer.map(({ name }) => name)).not.toContain('w');
    expect(await readBack(model, feeds)).toEqual(rounded(w, c.weight, c.axis, bits));
    const plain = await outputOf(model, feeds);
    // The runtime fuses some into products with activations that it rounds to 8 bits.
    expect(largestDifference(plain, await outputOf(model, feeds, 'all'))).toBeLessThan(0.01);
  });

  test('as floats, the same numbers', async () => {
    const model = build(c);
    const before = initializer(model, 'w');
    await storeRounded(model, () => ({ bits: 3 }));
    const packed = build(c);
    await storeWeightOnly(packed, () => ({ bits: 3 }));
    expect(initializer(model, 'w')).toBe(before);
    expect(largestDifference(await outputOf(model, feeds), await outputOf(packed, feeds))).toBe(0);
  });
});

const matrix = (values: number[], format: WeightFormat, store = storeWeightOnly) => {
  const model = network(
    [node('Gemm', ['x', 'w'], ['y'], { transB: 1 })],
    [floats('w', [values.length / 3, 3], Float32Array.from(values))],
    [1, 3],
  );
  return store(model, () => format).then(() => model);
};
const codes = async (model: Model, count: number): Promise<number[]> => {
  const { rawData, dataType } = initializer(model, 'w_quantized');
  return Array.from(decode(rawData ?? new Uint8Array(), dtypeOf(dataType), count), Number);
};

test('halves go to the even code, at either sign', async () => {
  const scales = Float64Array.of(1);
  const model = await matrix([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], { bits: 8, scales });
  expect(await codes(model, 6)).toEqual([0, 2, 2, -0, -2, -2].map((v) => v + 0));
  expect(initializer(model, 'w_scale').dims).toEqual([]);
});

test('int4: two codes to a byte, the first in the low half, none below -7', async () => {
  const model = await matrix([-9, 7, 3, -1, 2, 0, 1, -2, 5], {
    bits: 4,
    scales: Float64Array.of(1),
  });
  const { rawData } = initializer(model, 'w_quantized');
  expect([...(rawData ?? [])]).toEqual([0x79, 0xf3, 0x02, 0xe1, 0x05]);
  expect(await codes(model, 9)).toEqual([-7, 7, 3, -1, 2, 0, 1, -2, 5]);
});

test('one scale for a tensor; scales that were given; the least squared error', async () => {
  const values = [0.1, -0.2, 0.3, 4, -3, 1];
  const tensor = await matrix(values, { bits: 8, granularity: 'tensor' });
  expect(await codes(tensor, 6)).toEqual(values.map((v) => even(v / Math.fround(4 / 127))));
  const given = await matrix(values, { bits: 8, scales: Float64Array.of(0.5, 0.25) });
  expect(await codes(given, 6)).toEqual([0, -0, 1, 16, -12, 4].map((v) => v + 0));
  const outlier = [0.1, 0.2, 0.15, 0.1, 0.12, 1];
  const error = async (scales: 'max' | 'least-squares') => {
    const model = await matrix(outlier, { bits: 3, granularity: 'tensor', scales });
    const back = await readBack(model, { x: float32([1, 3]) });
    return back.reduce((sum, v, i) => sum + (v - outlier[i]) ** 2, 0);
  };
  expect(await error('least-squares')).toBeLessThan(await error('max'));
});

test('a channel of zeros, and one too small for float32 scales', async () => {
  const model = await matrix([0, 0, 0, 1e-42, 0, -1e-42, 1, 2, 3], { bits: 8 });
  const back = await readBack(model, { x: float32([1, 3]) });
  expect(back.every(Number.isFinite)).toBe(true);
  expect(back.slice(0, 3)).toEqual([0, 0, 0]);
});

test('a weight that two layers read is stored once where their formats agree', async () => {
  const make = () =>
    network(
      [
        node('MatMul', ['x', 'w'], ['h'], {}, { name: 'first' }),
        node('MatMul', ['h', 'w'], ['y'], {}, { name: 'second' }),
      ],
      [stored('w', [4, 4])],
      [1, 4],
    );
  const same = make();
  await storeWeightOnly(same, () => ({ bits: 8 }));
  expect(same.proto.graph?.initializer).toHaveLength(3);
  const apart = make();
  await storeWeightOnly(apart, ({ name }) => ({ bits: name === 'first' ? 8 : 4 }));
  expect(apart.proto.graph?.initializer).toHaveLength(6);
  const one = make();
  await storeWeightOnly(one, ({ name }) => (name === 'first' ? { bits: 8 } : undefined));
  expect(one.proto.graph?.initializer.map(({ name }) => name)).toContain('w');
  for (const model of [same, apart, one]) await outputOf(model, { x: float32([1, 4]) }, 'all');
});

test('what is refused or skipped', async () => {
  await expect(matrix([1, 2, 3], { bits: 1 })).rejects.toMatchObject({ exitCode: 2 });
  await expect(matrix([1, 2, 3], { bits: 9 })).rejects.toMatchObject({ exitCode: 2 });
  await expect(matrix([1, 2, 3], { bits: 17 }, storeRounded)).rejects.toMatchObject({
    exitCode: 2,
  });
  for (const bad of [Number.NaN, Infinity])
    await expect(matrix([1, bad, 3], { bits: 8 })).rejects.toMatchObject({ exitCode: 5 });

  const model = build(cases[0]);
  await storeWeightOnly(model, () => ({ bits: 8 }));
  for (const store of [storeWeightOnly, storeRounded])
    await expect(store(model, () => ({ bits: 8 }))).rejects.toMatchObject({
      exitCode: 5,
      detail: { where: expect.stringContaining('DequantizeLinear') },
    });

  const overridable = build(cases[7]);
  overridable.proto.graph?.input.push({ name: 'w' });
  const [report] = await storeWeightOnly(overridable, () => ({ bits: 8 }));
  expect(report).toMatchObject({ status: 'skipped', reason: 'weight is an input with a default' });
});

test('the opset of int4 changes nothing else', async () => {
  const make = () =>
    network(
      [
        node('ReduceMean', ['x'], ['mean'], { axes: [2, 3], keepdims: 1 }),
        node('Sub', ['x', 'mean'], ['centred']),
        node('Split', ['centred'], ['left', 'right'], { axis: 1 }),
        node('Mul', ['left', 'right'], ['z']),
        node('ReduceMax', ['z'], ['top'], { keepdims: 1 }),
        node('Add', ['z', 'top'], ['h']),
        node('Conv', ['h', 'w'], ['y']),
      ],
      [floats('w', [2, 2, 1, 1], Float32Array.of(7, -3, 2, 7))],
      [1, 4, 3, 3],
    );
  const feeds = { x: float32([1, 4, 3, 3]) };
  const model = make();
  await storeWeightOnly(model, () => ({ bits: 4 }));
  expect(model.proto.opsetImport).toEqual([{ domain: '', version: 21 }]);
  expect(model.proto.irVersion).toBe(10);
  expect(
    largestDifference(await outputOf(model, feeds), await outputOf(make(), feeds)),
  ).toBeLessThan(1e-5);
});

test('the file shrinks: int8 to a fourth, int4 to an eighth', async () => {
  const make = () =>
    network([node('Conv', ['x', 'w'], ['y'])], [stored('w', [64, 64, 3, 3])], [1, 64, 8, 8]);
  const size = async (bits?: number) => {
    const model = make();
    if (bits) await storeWeightOnly(model, () => ({ bits }));
    return (await serializeModel(model)).length;
  };
  const float = await size();
  expect((await size(8)) / float).toBeLessThan(0.26);
  expect((await size(4)) / float).toBeLessThan(0.135);
});

test('a layer in a local function', async () => {
  const make = () => {
    const model = network([node('Layer', ['x'], ['y'], {}, { domain: 'own' })], [], [1, 4]);
    model.proto.opsetImport.push({ domain: 'own', version: 1 });
    model.proto.irVersion = 8;
    const body = [
      node('Constant', [], ['w'], { value: stored('', [4, 4]) }),
      node('MatMul', ['a', 'w'], ['b']),
    ];
    const opsetImport = [{ version: 13 }];
    model.proto.functions = [
      {
        name: 'Layer',
        domain: 'own',
        input: ['a'],
        output: ['b'],
        attribute: [],
        node: body,
        opsetImport,
      },
    ];
    return model;
  };
  const feeds = { x: float32([1, 4]) };
  const model = make();
  const report = await storeWeightOnly(model, () => ({ bits: 8 }));
  expect(report.map(({ status }) => status)).toEqual(['changed']);
  expect(
    largestDifference(await outputOf(make(), feeds), await outputOf(model, feeds)),
  ).toBeLessThan(0.02);
});
