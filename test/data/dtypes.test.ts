import { convert, filled, fromNumbers, toNumbers } from '../../src/data/dtypes.js';

test('values that an integer type cannot hold are refused', () => {
  expect(fromNumbers([1, -2], 'int64', 'x')).toEqual(BigInt64Array.of(1n, -2n));
  expect(fromNumbers([0, 255], 'uint8', 'x')).toEqual(Uint8Array.of(0, 255));
  expect(() => fromNumbers([0, 256], 'uint8', 'x')).toThrow(/does not fit/);
  expect(() => fromNumbers([0.5], 'int32', 'x')).toThrow(/does not fit/);
  expect(() => fromNumbers([-1], 'uint64', 'x')).toThrow(/does not fit/);
  expect(() => fromNumbers([2], 'bool', 'x')).toThrow(/does not fit/);
});

test('conversion keeps values, and the data itself when the dtype stays', () => {
  const big = { dtype: 'int64', dims: [1], data: BigInt64Array.of(2n ** 62n) } as const;
  expect(convert({ ...big, dims: [1] }, 'int64', 'x')).toBe(big.data);
  expect(() => convert({ ...big, dims: [1] }, 'uint64', 'x')).toThrow(/does not fit/);
  expect(
    convert({ dtype: 'uint8', dims: [2], data: Uint8Array.of(1, 200) }, 'float16', 'x'),
  ).toEqual(Uint16Array.of(0x3c00, 0x5a40));
  const halves = Uint16Array.of(0x3c00, 0xc000, 0x7c00, 0x0001);
  expect(Array.from(toNumbers({ dtype: 'float16', data: halves }))).toEqual([
    1,
    -2,
    Infinity,
    2 ** -24,
  ]);
  expect(fromNumbers([1, -2, 1e6, 2 ** -24], 'float16', 'x')).toEqual(halves);
  expect(filled('int64', 2, 1)).toEqual(BigInt64Array.of(1n, 1n));
  expect(filled('float16', 1, 1)).toEqual(Uint16Array.of(0x3c00));
});
