import { dataError } from '../errors.js';
import type { TypedArray } from '../onnx/index.js';
import { encodeMiniFloats, miniFloatValues } from '../onnx/minifloat.js';
import type { TensorData } from './types.js';

const arrays = {
  bool: Uint8Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  float16: Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
} as const;

/** numpy's names of the numeric types. */
export type DType = keyof typeof arrays;
export type { TypedArray };

/** Inclusive integer ranges; 64-bit ones are limited to what a number holds exactly. */
const ranges: Partial<Record<DType, [number, number]>> = {
  bool: [0, 1],
  int8: [-(2 ** 7), 2 ** 7 - 1],
  uint8: [0, 2 ** 8 - 1],
  int16: [-(2 ** 15), 2 ** 15 - 1],
  uint16: [0, 2 ** 16 - 1],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  uint64: [0, Number.MAX_SAFE_INTEGER],
};

export const isDType = (name: string): name is DType => Object.hasOwn(arrays, name);
export const isInteger = (dtype: string) => isDType(dtype) && dtype !== 'bool' && dtype in ranges;
export const isFloat = (dtype: string) => dtype.startsWith('float') && isDType(dtype);
export const itemSize = (dtype: DType) => arrays[dtype].BYTES_PER_ELEMENT;
const allocate = (dtype: DType, length: number): TypedArray => new arrays[dtype](length);

/** `length` elements of one value. */
export function filled(dtype: DType, length: number, value: number): TypedArray {
  const data = allocate(dtype, length);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array)
    return data.fill(BigInt(value));
  return data.fill(dtype === 'float16' ? toFloat16([value])[0] : value);
}

/** A shape for messages; `?` is a dynamic dimension without a name. */
export const showDims = (dims: readonly (number | string)[]) =>
  `[${dims.map((dim) => (dim === '' ? '?' : dim)).join(', ')}]`;
export const product = (dims: readonly number[]) => dims.reduce((a, b) => a * b, 1);

/** Reads little-endian `bytes`, whose offset must be a multiple of the item size, without copying. */
export function viewBytes(bytes: Uint8Array, dtype: DType): TypedArray {
  return new arrays[dtype](
    bytes.buffer as ArrayBuffer,
    bytes.byteOffset,
    bytes.byteLength / itemSize(dtype),
  );
}

/** The elements as numbers; 64-bit integers lose what a double cannot hold. */
export function toNumbers({ dtype, data }: Pick<TensorData, 'dtype' | 'data'>): ArrayLike<number> {
  if (data instanceof BigInt64Array || data instanceof BigUint64Array)
    return Float64Array.from(data, Number);
  if (dtype !== 'float16') return data;
  const values = miniFloatValues('float16');
  return Float32Array.from(data, (code) => values[code]);
}

/**
 * Stores numbers as `dtype`. Throws a data error naming `where` when an integer type cannot hold a value,
 * because it has a fraction or is out of range.
 */
export function fromNumbers(values: ArrayLike<number>, dtype: DType, where: string): TypedArray {
  if (dtype === 'float32') return new Float32Array(values);
  if (dtype === 'float64') return new Float64Array(values);
  if (dtype === 'float16') return toFloat16(values);
  const [low, high] = ranges[dtype]!;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (!Number.isInteger(value) || value < low || value > high)
      throw dataError(`the value does not fit the model's ${dtype} input`, {
        where,
        expected: `integers from ${low} to ${high}`,
        got: `${value} at element ${i}`,
      });
  }
  if (dtype === 'int64') return BigInt64Array.from(values, BigInt);
  if (dtype === 'uint64') return BigUint64Array.from(values, BigInt);
  return arrays[dtype].from(values);
}

const toFloat16 = (values: ArrayLike<number>) =>
  encodeMiniFloats(new Float32Array(values), 'float16', new Uint16Array(values.length));

/** The same values as another dtype; the data itself when it already is of that type. */
export const convert = (tensor: TensorData, dtype: DType, where: string): TypedArray =>
  tensor.dtype === dtype ? tensor.data : fromNumbers(toNumbers(tensor), dtype, where);
