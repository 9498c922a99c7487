import { readFileSync } from 'node:fs';
import { type Preprocessing, prepare } from '../../src/data/preprocess.js';
import { resizeAxis } from '../../src/data/resize.js';
import type { InputSpec, TensorData } from '../../src/data/types.js';
import { fixture, plain, spec } from './helpers.js';

const bytes = (dims: number[], ...values: number[]): TensorData => ({
  dtype: 'uint8',
  dims,
  data: Uint8Array.from(values),
});
const run = (item: TensorData, to: InputSpec, how: Preprocessing = {}) =>
  plain(prepare(item, to, how, 'x.npz'));
const nchw = spec('image', 'float32', ['n', 3, 2, 1]);
const nhwc = spec('image', 'float32', ['n', 2, 1, 3]);

test('pixels are (x * scale - mean) / std per channel, in either layout', () => {
  const how = { scale: 2, mean: [0, 1, 2], std: [1, 2, 4] };
  const chw = bytes([3, 2, 1], 1, 2, 3, 4, 5, 6);
  expect(run(chw, nchw, how)).toEqual({
    dtype: 'float32',
    dims: [3, 2, 1],
    data: [2, 4, 2.5, 3.5, 2, 2.5],
  });
  const hwc = bytes([2, 1, 3], 1, 3, 5, 2, 4, 6);
  expect(run(hwc, nhwc, how).data).toEqual([2, 2.5, 2, 4, 3.5, 2.5]);
  expect(run(hwc, nchw, { ...how, layout: 'NHWC' })).toEqual(run(chw, nchw, how));
  expect(run(chw, nhwc, { ...how, layout: 'NCHW' })).toEqual(run(hwc, nhwc, how));
  expect(run(chw, nchw, { layout: 'NCHW', mean: [1] }).data).toEqual([0, 1, 2, 3, 4, 5]);
  expect(() => run(chw, nchw, { mean: [1, 2] })).toThrow(/`mean` does not fit/);
});

test('features are normalised along the last axis', () => {
  const how = { mean: [1, 2], std: [2, 1] };
  expect(run(bytes([2], 3, 4), spec('x', 'float32', ['n', 2]), how).data).toEqual([1, 2]);
});

test('axes of length 1 are added and dropped, and vectors take flattened items', () => {
  const item = bytes([2, 2], 1, 2, 3, 4);
  const dims = (to: (number | string)[], from = item) => run(from, spec('x', 'float32', to)).dims;
  expect(dims(['n', 1, 2, 2])).toEqual([1, 2, 2]);
  expect(dims(['n', 2, 2, 1])).toEqual([2, 2, 1]);
  expect(dims(['n', 4])).toEqual([4]);
  expect(dims(['n', 1, 'h', 'w'])).toEqual([1, 2, 2]);
  expect(dims(['n', 2, 2], bytes([1, 2, 2], 1, 2, 3, 4))).toEqual([2, 2]);
  expect(dims(['n', 1], bytes([], 1))).toEqual([1]);
  expect(dims(['n'], bytes([], 1))).toEqual([]);
  expect(dims([], bytes([1], 1))).toEqual([]);
});

test('an item that fills the whole input is kept whole', () => {
  expect(run(bytes([2, 2], 1, 2, 3, 4), spec('x', 'float32', [2, 2])).dims).toEqual([2, 2]);
  expect(run(bytes([1, 4], 1, 2, 3, 4), spec('x', 'float32', [1, 4])).dims).toEqual([4]);
});

test('a wrong shape says what to do', () => {
  const fail = (item: TensorData, to: InputSpec) => {
    try {
      run(item, to);
    } catch (error) {
      return JSON.stringify(error);
    }
    return '';
  };
  const hwc = bytes([2, 1, 3], 1, 2, 3, 4, 5, 6);
  expect(fail(hwc, nchw)).toMatch(/\[3, 2, 1\].*looks like NHWC; set `layout: NHWC`/);
  expect(fail(bytes([3, 2, 1], 1, 2, 3, 4, 5, 6), nhwc)).toMatch(/set `layout: NCHW`/);
  const big = spec('image', 'float32', ['n', 3, 32, 24]);
  expect(fail(bytes([3, 2, 1], 1, 2, 3, 4, 5, 6), big)).toMatch(/resize: \[32, 24\]/);
  expect(fail(bytes([5], 1, 2, 3, 4, 5), spec('x', 'float32', ['n', 4]))).toMatch(/got":"\[5\]/);
});

test('NaN is refused, with its place', () => {
  const item: TensorData = { dtype: 'float64', dims: [2], data: Float64Array.of(1, Number.NaN) };
  expect(() => run(item, spec('x', 'float32', ['n', 2]))).toThrow(/NaN/);
  const half: TensorData = { dtype: 'float16', dims: [1], data: Uint16Array.of(0x7e00) };
  expect(() => run(half, spec('x', 'float16', ['n', 1]))).toThrow(/NaN/);
});

describe('resize', () => {
  const golden = JSON.parse(readFileSync(fixture('rgb.json'), 'utf8'));
  const red = bytes([5, 7], ...golden.rgb.filter((_: number, i: number) => i % 3 === 0));

  test.each(['3x4', '10x14', '5x3'])('to %s as Pillow does', (size) => {
    const [height, width] = size.split('x').map(Number);
    const to = spec('x', 'float32', ['n', height, width]);
    const { dims, data } = run(red, to, { resize: [height, width] });
    expect(dims).toEqual([height, width]);
    for (const [i, value] of golden['red resized'][size].entries())
      expect(data[i]).toBeCloseTo(value, 2);
  });

  test('works in both layouts and on interleaved channels', () => {
    const rgb = bytes([5, 7, 3], ...golden.rgb);
    const chw = run(rgb, spec('x', 'float32', ['n', 3, 3, 4]), { layout: 'NHWC', resize: [3, 4] });
    const hwc = run(rgb, spec('x', 'float32', ['n', 3, 4, 3]), {
      layout: 'NHWC',
      modelLayout: 'NHWC',
      resize: [3, 4],
    });
    expect(chw.dims).toEqual([3, 3, 4]);
    expect(chw.data.slice(0, 12)).toEqual(hwc.data.filter((_, i) => i % 3 === 0));
    expect(() =>
      run(bytes([4], 1, 2, 3, 4), spec('x', 'float32', ['n', 4]), { resize: [2, 2] }),
    ).toThrow(/only images/);
  });

  test('a constant stays constant', () => {
    for (const size of [1, 2, 5, 9])
      for (const value of resizeAxis(new Float64Array(10).fill(3), [5, 2], 0, size))
        expect(value).toBeCloseTo(3, 12);
  });
});
