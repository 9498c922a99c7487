import { modelError } from '../errors.js';

/**
 * Element types: TensorProto.DataType code and bits per element. `string` elements have no fixed
 * width; `unknown` is any code that we do not know: such tensors are carried, never decoded.
 */
const TABLE = {
  unknown: [0, 0],
  float32: [1, 32],
  uint8: [2, 8],
  int8: [3, 8],
  uint16: [4, 16],
  int16: [5, 16],
  int32: [6, 32],
  int64: [7, 64],
  string: [8, 0],
  bool: [9, 8],
  float16: [10, 16],
  float64: [11, 64],
  uint32: [12, 32],
  uint64: [13, 64],
  complex64: [14, 64],
  complex128: [15, 128],
  bfloat16: [16, 16],
  float8e4m3fn: [17, 8],
  float8e4m3fnuz: [18, 8],
  float8e5m2: [19, 8],
  float8e5m2fnuz: [20, 8],
  uint4: [21, 4],
  int4: [22, 4],
  float4e2m1: [23, 4],
  float8e8m0: [24, 8],
  uint2: [25, 2],
  int2: [26, 2],
} as const;

/** Name of an element type, as NumPy and ml_dtypes write it. */
export type DType = keyof typeof TABLE;

export const DTYPES = Object.keys(TABLE).filter(isDType);

function isDType(name: string): name is DType {
  return Object.hasOwn(TABLE, name);
}

const byCode = new Map<number, DType>(DTYPES.map((name) => [TABLE[name][0], name]));

/** The dtype of a TensorProto.DataType code; `unknown` for 0, absent and codes after our time. */
export const dtypeOf = (code: number | undefined): DType => byCode.get(code ?? 0) ?? 'unknown';

/** The TensorProto.DataType code, also used by `TypeProto.elemType` and the `to` of `Cast`. */
export const dtypeCode = (dtype: DType): number => TABLE[dtype][0];

/** Bits per element; 0 for `string` and `unknown`, which have no fixed width. */
export const dtypeBits = (dtype: DType): number => TABLE[dtype][1];

/** Bytes that `elements` elements take in raw form; sub-byte elements fill whole bytes, the last one padded. */
export const dtypeByteLength = (dtype: DType, elements: number): number =>
  Math.ceil((elements * dtypeBits(dtype)) / 8);

/** Whether the type is one of the real floating-point types. */
export const isFloat = (dtype: DType): boolean => /^b?float/.test(dtype);

/**
 * Number of elements of a shape (1 for a scalar).
 * @throws modelError for a negative or fractional dimension, or when the product is not a safe integer
 */
export function elementCount(shape: readonly number[], where: string): number {
  let count = 1;
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || dim < 0)
      throw modelError('a tensor has an impossible dimension', {
        where,
        expected: 'dimensions of 0 or more',
        got: `[${shape.join(', ')}]`,
        hint: 'Export the model again; the file is damaged or was written by a faulty tool.',
      });
    count *= dim;
  }
  if (!(count <= Number.MAX_SAFE_INTEGER) && !shape.includes(0))
    throw modelError('a tensor promises more elements than any file can hold', {
      where,
      got: `[${shape.join(', ')}]`,
      hint: 'Export the model again; the file is damaged.',
    });
  return shape.includes(0) ? 0 : count;
}
