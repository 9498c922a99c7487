import type { Range } from '../../../../src/methods/compress/formats/activation-ranges.js';
import { measureRanges } from '../../../../src/methods/compress/formats/measured-ranges.js';
import { checkKernels } from '../../../../src/methods/ternarize/formats/check.js';
import { storeFloats } from '../../../../src/methods/ternarize/formats/float.js';
import type { ChooseCodes } from '../../../../src/methods/ternarize/formats/layers.js';
import { storeIntegers } from '../../../../src/methods/ternarize/formats/standard-int8.js';
import { type Model, type NodeProto, serializeModel } from '../../../../src/onnx/index.js';
import { floats, node } from '../../../support/protos.js';
import {
  float32,
  network,
  noise,
  normInputs,
  normParameters,
  opTypes,
  outputOf,
  stored,
} from '../../compress/formats/helpers.js';
import { always, relativeError, someCodes } from './helpers.js';

const levels = ['all', 'basic', 'disabled'] as const;
const image = [1, 16, 8, 8];
const pads = { pads: [1, 1, 1, 1] };
const [w, v] = [stored('w', [16, 16, 3, 3]), stored('v', [16, 16, 3, 3], 3)];
const codes = someCodes(16, 144);

const conv = (inputs: string[], output: string, name?: string): NodeProto =>
  node('Conv', inputs, [output], pads, { name });

/** Stores convolutions by the ranges that their float twin has, and compares what both put out. */
async function compare(
  build: () => Model,
  choose: ChooseCodes,
  {
    dims = image,
    edit = () => {},
  }: { dims?: number[]; edit?: (r: Map<string, Range>) => void } = {},
) {
  const x = float32(dims);
  const twin = build();
  await storeFloats(twin, choose);
  const wanted = await outputOf(twin, { x });
  const ranges = await measureRanges(twin, () => [{ x }], { threads: 1 });
  edit(ranges);
  const model = build();
  const reports = await storeIntegers(model, choose, ranges);
  for (const level of levels)
    expect(relativeError(await outputOf(model, { x }, level), wanted)).toBeLessThan(0.03);
  const file = await serializeModel(model);
  return { model, reports, file, found: await checkKernels(file, reports) };
}

const tritBytes = (weights: number, outputs: number) => Math.ceil(weights / 5) + 4 * outputs;

test.each([
  ['Relu', {}],
  ['Clip', {}],
])('in integers, with %s between them and every bias', async (op) => {
  const limits = op === 'Clip' ? ['low', 'high'] : [];
  const build = () =>
    network(
      [
        conv(['x', 'w', 'b'], 'h', 'first'),
        node(op, ['h', ...limits], ['r']),
        conv(['r', 'v'], 'y', 'second'),
      ],
      [
        ...[w, v, stored('b', [16], 8)],
        ...[floats('low', [], Float32Array.of(0)), floats('high', [], Float32Array.of(6))].filter(
          () => op === 'Clip',
        ),
      ],
      image,
    );
  const bias = noise(16, 6).map((b) => 3 * b);
  const { reports, found } = await compare(build, always({ codes, bias }));
  expect(reports.map(({ name, kernel }) => [name, kernel])).toEqual([
    ['first', 'QLinearConv'],
    ['second', 'QLinearConv'],
  ]);
  for (const { bytes } of reports) expect(bytes).toBe(tritBytes(16 * 144, 16));
  for (const { fast, ops } of found) {
    expect(fast).toBe(true);
    expect(ops).toEqual([expect.stringMatching(/QLinearConv$/)]);
  }
});

test.each<[string, number[], number[], object]>([
  ['1x1', [16, 16, 1, 1], image, {}],
  ['strides', [16, 16, 3, 3], image, { strides: [2, 2] }],
  ['groups', [16, 4, 3, 3], image, { group: 4 }],
  ['depthwise', [16, 1, 3, 3], image, { group: 16 }],
  ['one axis', [8, 16, 3], [1, 16, 20], {}],
  ['three axes', [8, 4, 3, 3, 3], [1, 4, 6, 6, 6], {}],
  ['one output', [1, 16, 3, 3], image, {}],
])('a convolution of other shape: %s', async (_, shape, dims, attributes) => {
  const cols = shape.slice(1).reduce((a, b) => a * b, 1);
  const build = () =>
    network([node('Conv', ['x', 'u'], ['y'], { ...attributes })], [stored('u', shape)], dims);
  const coded = { codes: someCodes(shape[0], cols), bias: noise(shape[0], 6) };
  const { reports, found } = await compare(build, always(coded), { dims });
  expect(reports).toMatchObject([{ name: 'u', kernel: 'QLinearConv' }]);
  expect(found).toMatchObject([{ name: 'u', fast: true }]);
});

test('BatchNormalizations are folded where a convolution is in integers, and there alone', async () => {
  const build = () =>
    network(
      [
        conv(['x', 'w'], 'h', 'grouped'),
        node('BatchNormalization', normInputs('h', 'n'), ['z']),
        node('Relu', ['z'], ['r']),
        conv(['r', 'v'], 'k', 'whole'),
        node('BatchNormalization', normInputs('k', 'm'), ['s']),
        node('GlobalAveragePool', ['s'], ['p']),
        node('Flatten', ['p'], ['f']),
        node('Gemm', ['f', 'g'], ['q'], {}, { name: 'gemm' }),
        node('BatchNormalization', normInputs('q', 'l'), ['y']),
      ],
      [
        ...[w, v, stored('g', [16, 10])],
        ...[normParameters('n', 16), normParameters('m', 16, 9), normParameters('l', 10, 7)].flat(),
      ],
      image,
    );
  const { model, reports, found } = await compare(build, ({ name }) => ({
    codes: name === 'gemm' ? someCodes(10, 16) : someCodes(16, 144, name === 'whole' ? 144 : 16),
  }));
  expect(reports.map(({ name, status, kernel }) => [name, status, kernel])).toEqual([
    ['grouped', 'changed', 'float'],
    ['whole', 'changed', 'QLinearConv'],
    ['gemm', 'changed', 'MatMulInteger'],
  ]);
  expect(opTypes(model).filter((op) => op === 'BatchNormalization')).toHaveLength(2);
  expect(found.every(({ fast }) => fast)).toBe(true);
});

test('without a range a convolution is unpacked to floats at load', async () => {
  const build = () =>
    network(
      [conv(['x', 'w'], 'h', 'first'), node('Relu', ['h'], ['r']), conv(['r', 'v'], 'y', 'second')],
      [w, v],
      image,
    );
  const { reports, found } = await compare(build, always({ codes, bias: noise(16, 6) }), {
    edit: (ranges) => ranges.delete('y'),
  });
  expect(reports).toMatchObject([
    { name: 'first', kernel: 'QLinearConv' },
    { name: 'second', kernel: 'float', reason: 'no range of y is known' },
  ]);
  expect(reports[1].bytes).toBe(tritBytes(16 * 144, 16));
  expect(found).toMatchObject([{ fast: true }, { fast: true }]);
});

test('nodes without names and a weight that is read twice: one report each, one weight', async () => {
  const build = () =>
    network(
      [
        conv(['x', 'w'], 'h'),
        node('Relu', ['h'], ['r']),
        node('MatMul', ['r', 'm'], ['t']),
        conv(['t', 'w'], 'y'),
      ],
      [w, stored('m', [8, 8])],
      image,
    );
  const asked: string[] = [];
  const choose: ChooseCodes = ({ name, op }) => {
    asked.push(name);
    return { codes: op === 'Conv' ? codes : someCodes(8, 8) };
  };
  const partly = async (edit?: (ranges: Map<string, Range>) => void) => {
    const { reports, found } = await compare(build, choose, { edit });
    expect(reports.map(({ name }) => name)).toEqual(['w', 'm', 'w#2']);
    expect(reports.map(({ bytes }) => bytes)).toEqual([tritBytes(2304, 16), tritBytes(64, 8), 0]);
    expect(found.map(({ name, fast }) => [name, fast])).toEqual([
      ['w', true],
      ['m', true],
      ['w#2', true],
    ]);
    return reports.map(({ kernel }) => kernel);
  };
  expect(await partly()).toEqual(['QLinearConv', 'MatMulInteger', 'QLinearConv']);
  // Once by the float twin, once by the integers.
  expect(asked).toEqual(['w', 'm', 'w#2', 'w', 'm', 'w#2']);
  const less = await partly((ranges) => ranges.delete('y'));
  expect(less).toEqual(['QLinearConv', 'MatMulInteger', 'float']);
});

test.each([
  [2, [-2, -1, 0, 1], 4],
  [4, [-8, 7, 3, -1], 2],
  [8, [-127, 127, 5], 1],
] as const)('codes of %p bits, the least of them too', async (bits, values, perByte) => {
  const wide = { ...codes, codes: codes.codes.map((_, i) => values[(i * 7) % values.length]) };
  const scales = codes.scales.map((s) => Math.abs(s) + 0.01);
  const build = () => network([conv(['x', 'w'], 'y', 'layer')], [w], image);
  const { reports, found } = await compare(build, always({ codes: { ...wide, scales }, bits }));
  expect(reports).toMatchObject([{ kernel: 'QLinearConv', bytes: 2304 / perByte + 64 }]);
  expect(found).toMatchObject([{ fast: true }]);
  // Codes and their negatives, where scales are below zero.
  const mixed = scales.map((s, i) => (i % 2 ? s : -s));
  await compare(build, always({ codes: { ...wide, scales: mixed }, bits }));
});

test('a code that has no negative in 8 bits is kept, in floats', async () => {
  const wide = { ...codes, codes: codes.codes.map((c) => (c < 0 ? -128 : c)) };
  const build = () => network([conv(['x', 'w'], 'y', 'layer')], [w], image);
  const { reports } = await compare(build, always({ codes: wide, bits: 8 }));
  expect(reports).toMatchObject([{ name: 'layer', kernel: 'float' }]);
});

test('offsets are refused before anything is changed', async () => {
  const model = network([conv(['x', 'w'], 'y', 'layer')], [w], image);
  const coded = { codes: { ...codes, offsets: new Float32Array(16) } };
  await expect(storeIntegers(model, always(coded), new Map())).rejects.toThrow('Asymmetric');
  expect(opTypes(model)).toEqual(['Conv']);
});
