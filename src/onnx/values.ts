import { modelError } from '../errors.js';
import { type DType, dtypeBits, dtypeByteLength } from './dtypes.js';
import { encodeMiniFloats, isMiniFloat, miniFloatValues } from './minifloat.js';

/** Bytes are little-endian here, like every platform that ONNX Runtime's Node binding supports. */
export type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

const NATIVE = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
  complex64: Float32Array,
  complex128: Float64Array,
};

const isNative = (dtype: DType): dtype is keyof typeof NATIVE => Object.hasOwn(NATIVE, dtype);

/** Range of the integer types that fit a number. */
const INTEGERS: Partial<Record<DType, readonly [min: number, max: number]>> = {
  int2: [-2, 1],
  uint2: [0, 3],
  int4: [-8, 7],
  uint4: [0, 15],
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-0x8000, 0x7fff],
  uint16: [0, 0xffff],
  int32: [-0x8000_0000, 0x7fff_ffff],
  uint32: [0, 0xffff_ffff],
};

/**
 * Decodes raw tensor bytes into an array of the caller's own.
 *
 * float16, bfloat16, float8 and float4 become Float32Array (exact); 2- and 4-bit integers Int8Array
 * or Uint8Array, one element each; bool Uint8Array; complex numbers interleaved pairs; every other
 * type its own array.
 * @param elements how many elements; by default all that `bytes` has room for
 * @throws modelError for strings and unknown types
 */
export function decode(bytes: Uint8Array, dtype: DType, elements?: number): TypedArray {
  const bits = dtypeBits(dtype);
  if (bits === 0) throw undecodable(dtype);
  const count = elements ?? Math.floor((bytes.length * 8) / bits);
  const length = dtypeByteLength(dtype, count);
  if (length > bytes.length)
    throw new Error(`${bytes.length} bytes do not hold ${count} elements of ${dtype}`);
  if (isNative(dtype)) return new NATIVE[dtype](copyOf(bytes, length));

  if (isMiniFloat(dtype) || dtype === 'float8e8m0') {
    const table = dtype === 'float8e8m0' ? powersOfTwo() : miniFloatValues(dtype);
    const codes = bits === 16 ? new Uint16Array(copyOf(bytes, length)) : unpack(bytes, bits, count);
    const values = new Float32Array(count);
    for (let i = 0; i < count; i++) values[i] = table[codes[i]];
    return values;
  }
  const codes = unpack(bytes, bits, count);
  return dtype.startsWith('u') ? codes : signExtend(codes, bits);
}

/**
 * Like `decode`, as float32: exact for floats of at most 32 bits and integers up to 2^24, rounded for
 * float64 and larger integers; bool is 0 or 1.
 * @throws modelError for strings, complex numbers and unknown types
 */
export function decodeFloat32(bytes: Uint8Array, dtype: DType, elements?: number): Float32Array {
  if (dtype.startsWith('complex')) throw undecodable(dtype);
  const values = decode(bytes, dtype, elements);
  if (values instanceof Float32Array) return values;
  const floats = new Float32Array(values.length);
  if (dtype === 'bool') for (let i = 0; i < floats.length; i++) floats[i] = values[i] ? 1 : 0;
  else for (let i = 0; i < floats.length; i++) floats[i] = Number(values[i]);
  return floats;
}

/**
 * Encodes float32 values as raw tensor bytes of another type.
 *
 * float32 and float64 are exact; smaller floats as `encodeMiniFloats` says. Integers are rounded to
 * nearest, ties to even, and clipped to their range, NaN is 0: that is quantization, not ONNX's
 * `Cast`, which truncates. bool is whether the value differs from 0.
 * @throws modelError for strings, complex numbers, float8e8m0 and unknown types
 */
export function encodeFloat32(values: Float32Array, dtype: DType): Uint8Array {
  if (dtype === 'float32') return bytesOf(values.slice());
  if (dtype === 'float64') return bytesOf(new Float64Array(values));
  if (dtype === 'bool')
    return new Uint8Array(values.length).map((_, i) => (values[i] === 0 ? 0 : 1));
  if (dtype === 'int64' || dtype === 'uint64') return bytesOf(toInt64(values, dtype));
  const bits = dtypeBits(dtype);
  if (isMiniFloat(dtype))
    return bits === 16
      ? bytesOf(encodeMiniFloats(values, dtype, new Uint16Array(values.length)))
      : pack(encodeMiniFloats(values, dtype, new Uint8Array(values.length)), bits);

  const range = INTEGERS[dtype];
  if (!range) throw undecodable(dtype);
  const [min, max] = range;
  const codes = new (bits === 32 ? Uint32Array : bits === 16 ? Uint16Array : Uint8Array)(
    values.length,
  );
  for (let i = 0; i < codes.length; i++)
    codes[i] = Math.min(max, Math.max(min, roundHalfEven(values[i] || 0)));
  return codes instanceof Uint8Array ? pack(codes, bits) : bytesOf(codes);
}

function roundHalfEven(value: number): number {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 !== 0 ? up - 1 : up;
}

function toInt64(values: Float32Array, dtype: 'int64' | 'uint64'): BigInt64Array | BigUint64Array {
  const [min, max] = dtype === 'int64' ? [-(2n ** 63n), 2n ** 63n - 1n] : [0n, 2n ** 64n - 1n];
  const integers = new NATIVE[dtype](values.length);
  for (let i = 0; i < integers.length; i++) {
    const value = values[i];
    if (value >= Number(max)) integers[i] = max;
    else if (value <= Number(min)) integers[i] = min;
    else integers[i] = BigInt(roundHalfEven(value || 0));
  }
  return integers;
}

/** The values of float8e8m0: 2^(code - 127), no sign, no zero, and NaN for 255. */
const powersOfTwo = () =>
  Float32Array.from({ length: 256 }, (_, code) => (code === 255 ? Number.NaN : 2 ** (code - 127)));

/** Elements of 2, 4 or 8 bits, one per byte; the first is in the lowest bits. */
function unpack(bytes: Uint8Array, bits: number, count: number): Uint8Array {
  const codes = new Uint8Array(count);
  const perByte = 8 / bits;
  const mask = 2 ** bits - 1;
  for (let i = 0, byte = 0; i < count; byte++)
    for (let slot = 0; slot < perByte && i < count; slot++)
      codes[i++] = (bytes[byte] >> (slot * bits)) & mask;
  return codes;
}

/** The inverse of `unpack`; bits above an element's own are dropped, the last byte is padded with 0. */
function pack(codes: Uint8Array, bits: number): Uint8Array {
  if (bits === 8) return codes;
  const perByte = 8 / bits;
  const bytes = new Uint8Array(Math.ceil(codes.length / perByte));
  const mask = 2 ** bits - 1;
  for (let i = 0, byte = 0; i < codes.length; byte++)
    for (let slot = 0; slot < perByte && i < codes.length; slot++)
      bytes[byte] |= (codes[i++] & mask) << (slot * bits);
  return bytes;
}

function signExtend(codes: Uint8Array, bits: number): Int8Array {
  const signed = new Int8Array(codes.buffer);
  for (let i = 0; i < signed.length; i++) signed[i] = (codes[i] << (32 - bits)) >> (32 - bits);
  return signed;
}

/** A copy, aligned for any element type. (Not `slice`, which gives a view if it is a Buffer.) */
const copyOf = (bytes: Uint8Array, length: number) =>
  new Uint8Array(bytes.subarray(0, length)).buffer;

const bytesOf = ({ buffer, byteOffset, byteLength }: TypedArray) =>
  new Uint8Array(buffer, byteOffset, byteLength);

const undecodable = (dtype: DType) =>
  modelError(`tensors of type ${dtype} cannot be treated as numbers`, {
    expected: 'a real numeric type',
    got: dtype,
    hint: 'Exclude the layer, or convert the tensor to float32 first.',
  });
