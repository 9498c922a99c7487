import type { DType } from './dtypes.js';

/** A binary floating-point format of at most 16 bits with one sign bit. */
interface Format {
  exponentBits: number;
  mantissaBits: number;
  bias: number;
  /** Code of the largest finite number. */
  maxCode: number;
  /** Code of +infinity, when there is one. */
  infCode?: number;
  /** Code of NaN, when there is one. With `unsignedZero` it is the code that -0 would have. */
  nanCode?: number;
  /** The `fnuz` formats: no negative zero. */
  unsignedZero?: boolean;
}

/**
 * IEEE 754 half, bfloat16, the four float8 formats of ONNX (arXiv 2209.05433 and 2206.02915) and
 * OCP's float4e2m1.
 */
const FORMATS = {
  float16: {
    exponentBits: 5,
    mantissaBits: 10,
    bias: 15,
    maxCode: 0x7bff,
    infCode: 0x7c00,
    nanCode: 0x7e00,
  },
  bfloat16: {
    exponentBits: 8,
    mantissaBits: 7,
    bias: 127,
    maxCode: 0x7f7f,
    infCode: 0x7f80,
    nanCode: 0x7fc0,
  },
  float8e4m3fn: { exponentBits: 4, mantissaBits: 3, bias: 7, maxCode: 0x7e, nanCode: 0x7f },
  float8e4m3fnuz: {
    exponentBits: 4,
    mantissaBits: 3,
    bias: 8,
    maxCode: 0x7f,
    nanCode: 0x80,
    unsignedZero: true,
  },
  float8e5m2: {
    exponentBits: 5,
    mantissaBits: 2,
    bias: 15,
    maxCode: 0x7b,
    infCode: 0x7c,
    nanCode: 0x7f,
  },
  float8e5m2fnuz: {
    exponentBits: 5,
    mantissaBits: 2,
    bias: 16,
    maxCode: 0x7f,
    nanCode: 0x80,
    unsignedZero: true,
  },
  float4e2m1: { exponentBits: 2, mantissaBits: 1, bias: 1, maxCode: 0x7 },
} as const satisfies Partial<Record<DType, Format>>;

export type MiniFloat = keyof typeof FORMATS;

export const isMiniFloat = (dtype: DType): dtype is MiniFloat => Object.hasOwn(FORMATS, dtype);

const tables = new Map<MiniFloat, Float32Array>();

/** The value of every code of a format (exact: float32 holds them all), indexed by code. */
export function miniFloatValues(dtype: MiniFloat): Float32Array {
  let table = tables.get(dtype);
  if (!table) {
    const { exponentBits, mantissaBits } = FORMATS[dtype];
    table = Float32Array.from({ length: 2 ** (1 + exponentBits + mantissaBits) }, (_, code) =>
      valueOfCode(FORMATS[dtype], code),
    );
    tables.set(dtype, table);
  }
  return table;
}

function valueOfCode(format: Format, code: number): number {
  const { exponentBits, mantissaBits, bias, maxCode, infCode, nanCode } = format;
  const signBit = 1 << (exponentBits + mantissaBits);
  const magnitude = code & (signBit - 1);
  if (code === nanCode) return Number.NaN;
  const sign = code & signBit ? -1 : 1;
  if (magnitude === infCode) return sign * Number.POSITIVE_INFINITY;
  if (magnitude > maxCode) return Number.NaN;
  const exponent = magnitude >> mantissaBits;
  const fraction = (magnitude & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
  return (
    sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias))
  );
}

/**
 * Encodes float32 values, rounding to nearest, ties to even. Overflow: float16 and bfloat16 go to
 * infinity, as IEEE 754 says; float8 and float4 saturate at the largest finite number, infinities
 * too, as ONNX's `Cast` does by default. NaN stays NaN, or becomes the largest positive number in
 * float4e2m1, which has none. NaN payloads and signs are not kept.
 * @returns one code per value
 */
export function encodeMiniFloats<T extends Uint8Array | Uint16Array>(
  values: Float32Array,
  dtype: MiniFloat,
  codes: T,
): T {
  const format: Format = FORMATS[dtype];
  const { exponentBits, mantissaBits, bias, maxCode, nanCode = maxCode, unsignedZero } = format;
  const signShift = 31 - exponentBits - mantissaBits;
  const overflow = exponentBits + mantissaBits > 7 ? format.infCode! : maxCode;
  const minExponent = 1 - bias;
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);

  for (let i = 0; i < bits.length; i++) {
    const magnitude = bits[i] & 0x7fff_ffff;
    const sign = (bits[i] & 0x8000_0000) >>> signShift;
    if (magnitude > 0x7f80_0000) {
      codes[i] = nanCode;
      continue;
    }
    // A float32 is significand * 2^(exponent - 23); subnormals have no implicit bit.
    const exponent = Math.max(magnitude >>> 23, 1) - 127;
    const significand = magnitude < 0x80_0000 ? magnitude : (magnitude & 0x7f_ffff) | 0x80_0000;
    const shift = 23 - mantissaBits + Math.max(0, minExponent - exponent);
    let code = shift > 24 ? 0 : roundedShift(significand, shift);
    // A carry out of the mantissa moves into the exponent by itself.
    if (exponent >= minExponent && significand >= 0x80_0000)
      code += (exponent - minExponent) << mantissaBits;
    if (code > maxCode) code = overflow;
    codes[i] = code === 0 && unsignedZero ? 0 : sign | code;
  }
  return codes;
}

/** value / 2^shift, to nearest, ties to even. */
function roundedShift(value: number, shift: number): number {
  const half = 1 << (shift - 1);
  const rest = value & (2 * half - 1);
  const quotient = value >>> shift;
  return rest > half || (rest === half && quotient & 1) ? quotient + 1 : quotient;
}
