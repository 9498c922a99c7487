import fc from 'fast-check';
import { DTYPES, type DType, decode, decodeFloat32, encodeFloat32 } from '../../src/onnx/index.js';
import { bytesOf } from './wire.js';

interface Format {
  dtype: DType;
  bits: number;
  mantissa: number;
  max: number;
  min: number;
  nan?: number;
  inf?: number;
}

/** Formats by their definition: bits, largest finite number, smallest positive one, code of NaN and infinity. */
const FLOATS: Format[] = [
  { dtype: 'float16', bits: 16, mantissa: 10, max: 65504, min: 2 ** -24, nan: 0x7e00, inf: 0x7c00 },
  {
    dtype: 'bfloat16',
    bits: 16,
    mantissa: 7,
    max: 2 ** 128 - 2 ** 120,
    min: 2 ** -133,
    nan: 0x7fc0,
    inf: 0x7f80,
  },
  { dtype: 'float8e4m3fn', bits: 8, mantissa: 3, max: 448, min: 2 ** -9, nan: 0x7f },
  { dtype: 'float8e4m3fnuz', bits: 8, mantissa: 3, max: 240, min: 2 ** -10, nan: 0x80 },
  { dtype: 'float8e5m2', bits: 8, mantissa: 2, max: 57344, min: 2 ** -16, nan: 0x7f, inf: 0x7c },
  { dtype: 'float8e5m2fnuz', bits: 8, mantissa: 2, max: 57344, min: 2 ** -17, nan: 0x80 },
  { dtype: 'float4e2m1', bits: 4, mantissa: 1, max: 6, min: 0.5 },
];

const codesOf = (bits: number) =>
  bits === 16
    ? bytesOf(Uint16Array.from({ length: 65536 }, (_, code) => code))
    : bits === 8
      ? Uint8Array.from({ length: 256 }, (_, code) => code)
      : Uint8Array.from({ length: 8 }, (_, i) => (2 * i) | ((2 * i + 1) << 4));

const codeAt = (bytes: Uint8Array, bits: number, i: number): number =>
  bits === 16
    ? bytes[2 * i] | (bytes[2 * i + 1] << 8)
    : bits === 8
      ? bytes[i]
      : (bytes[i >> 1] >> (4 * (i & 1))) & 15;

const encodeOne = (value: number, dtype: DType, bits: number) =>
  codeAt(encodeFloat32(Float32Array.of(value), dtype), bits, 0);

describe.each(FLOATS)('$dtype', (format) => {
  const { dtype, bits, mantissa, max, min, nan, inf } = format;
  const saturates = bits < 16;
  const signed = 2 ** (bits - 1);
  const unsignedZero = dtype.endsWith('fnuz');
  const values = decodeFloat32(codesOf(bits), dtype);
  const finite = [...values.subarray(0, signed)].filter(Number.isFinite);

  test('every code has the value that the definition gives it', () => {
    for (let code = 0; code < 2 * signed; code++) {
      const magnitude = code % signed;
      const exponent = magnitude >> mantissa;
      const fraction = magnitude % 2 ** mantissa;
      const expected =
        min *
        (exponent ? (2 ** mantissa + fraction) * 2 ** (exponent - 1) : fraction) *
        (code < signed ? 1 : -1);
      if (Object.is(values[code], expected)) continue;
      if (magnitude === inf) expect(values[code]).toBe(code < signed ? Infinity : -Infinity);
      else {
        expect(values[code]).toBeNaN();
        expect(unsignedZero ? code === nan : magnitude >= (inf ?? nan!)).toBe(true);
      }
    }
    expect(Math.max(...finite)).toBe(max);
    expect(finite[1]).toBe(min);
  });

  test('every finite number is encoded as its own code', () => {
    const encoded = encodeFloat32(values, dtype);
    for (let code = 0; code < values.length; code++)
      if (Number.isFinite(values[code]) && codeAt(encoded, bits, code) !== code)
        throw new Error(`${values[code]} is not ${code}`);
  });

  test('numbers between two go to the nearest, from the middle to the even code', () => {
    const nextUp = (value: number) => {
      const float = Float32Array.of(value);
      new Uint32Array(float.buffer)[0] += 1;
      return float[0];
    };
    const nextDown = (value: number) => {
      const float = Float32Array.of(value);
      new Uint32Array(float.buffer)[0] -= 1;
      return float[0];
    };
    const numbers: number[] = [];
    const expected: number[] = [];
    for (let code = 0; code + 1 < finite.length; code++) {
      const middle = (finite[code] + finite[code + 1]) / 2;
      if (Math.fround(middle) !== middle) continue; // only below the smallest float32
      numbers.push(nextDown(middle), middle, nextUp(middle));
      expected.push(code, code + (code & 1), code + 1);
    }
    const positive = encodeFloat32(Float32Array.from(numbers), dtype);
    const negative = encodeFloat32(
      Float32Array.from(numbers, (value) => -value),
      dtype,
    );
    for (let i = 0; i < numbers.length; i++) {
      const code = expected[i];
      if (codeAt(positive, bits, i) !== code) throw new Error(`${numbers[i]} is not ${code}`);
      const mirrored = code === 0 && unsignedZero ? 0 : code + signed;
      if (codeAt(negative, bits, i) !== mirrored)
        throw new Error(`${-numbers[i]} is not ${mirrored}`);
    }
    expect(numbers.length).toBeGreaterThan(2 * finite.length);
  });

  test('any float32 goes to a nearest number', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true }), (value) => {
        const rounded = values[encodeOne(value, dtype, bits)];
        const error = Math.abs(rounded - value);
        const overflow = Math.abs(value) > max;
        for (const one of overflow ? [] : finite)
          if (Math.abs(one - Math.abs(value)) < error)
            throw new Error(`${one} is nearer to ${value}`);
      }),
      { numRuns: bits === 16 ? 50 : 500 },
    );
  });

  test('overflow, infinity, NaN and zero follow the stated policy', () => {
    const top = saturates ? finite.indexOf(max) : inf;
    const halfStep = (max - finite[finite.indexOf(max) - 1]) / 2;
    expect(encodeOne(max + halfStep, dtype, bits)).toBe(top);
    expect(encodeOne(max + halfStep * 0.99, dtype, bits)).toBe(finite.indexOf(max));
    for (const large of [max * 4, Infinity]) {
      expect(encodeOne(large, dtype, bits)).toBe(top);
      expect(encodeOne(-large, dtype, bits)).toBe(top! + signed);
    }
    expect(encodeOne(Number.NaN, dtype, bits)).toBe(nan ?? finite.indexOf(max));
    expect(encodeOne(0, dtype, bits)).toBe(0);
    expect(encodeOne(-0, dtype, bits)).toBe(unsignedZero ? 0 : signed);
    expect(encodeOne(min / 2, dtype, bits)).toBe(0);
  });
});

test('bfloat16 is the upper half of float32', () => {
  const codes = codesOf(16);
  const upper = Uint32Array.from(new Uint16Array(codes.buffer), (code) => code << 16);
  const values = decodeFloat32(codes, 'bfloat16');
  const expected = new Float32Array(upper.buffer);
  expect(values.every((value, code) => Object.is(value, expected[code]))).toBe(true);
});

test('float8e8m0 is a power of two', () => {
  const values = decodeFloat32(codesOf(8), 'float8e8m0');
  for (let code = 0; code < 255; code++) expect(Math.log2(values[code])).toBe(code - 127);
  expect(values[255]).toBeNaN();
});

const INTEGERS: [DType, bits: number, signed: boolean][] = [
  ['int2', 2, true],
  ['uint2', 2, false],
  ['int4', 4, true],
  ['uint4', 4, false],
  ['int8', 8, true],
  ['uint8', 8, false],
  ['int16', 16, true],
  ['uint16', 16, false],
  ['int32', 32, true],
  ['uint32', 32, false],
  ['int64', 64, true],
  ['uint64', 64, false],
];

describe.each(INTEGERS)('%s', (dtype, bits, signed) => {
  const min = signed ? -(2n ** BigInt(bits - 1)) : 0n;
  const max = 2n ** BigInt(signed ? bits - 1 : bits) - 1n;

  test('values are laid out from the low bits and come back exactly', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min, max }), { maxLength: 9 }), (integers) => {
        const packed = integers.reduce(
          (sum, value, i) => sum | (BigInt.asUintN(bits, value) << BigInt(bits * i)),
          0n,
        );
        const length = Math.ceil((integers.length * bits) / 8);
        const bytes = Uint8Array.from({ length }, (_, i) =>
          Number((packed >> BigInt(8 * i)) & 255n),
        );
        expect([...decode(bytes, dtype, integers.length)].map(BigInt)).toEqual(integers);
        if (
          integers.every(
            (value) =>
              Number.isSafeInteger(Math.fround(Number(value))) &&
              BigInt(Math.fround(Number(value))) === value,
          )
        )
          expect(encodeFloat32(Float32Array.from(integers, Number), dtype)).toEqual(bytes);
      }),
    );
  });

  test('numbers are rounded half to even and clipped', () => {
    const range = Number(max - min);
    const number = fc.oneof(
      fc.double({ min: Number(min) - range / 4, max: Number(max) + range / 4, noNaN: true }),
      fc.integer({ min: -20, max: 20 }).map((n) => n / 2),
    );
    fc.assert(
      fc.property(number, (double) => {
        const value = Math.fround(double);
        const floor = Math.floor(value);
        const rest = value - floor;
        const rounded = BigInt(rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor);
        const expected = rounded < min ? min : rounded > max ? max : rounded;
        const bytes = encodeFloat32(Float32Array.of(value), dtype);
        expect(BigInt(decode(bytes, dtype, 1)[0])).toBe(expected);
      }),
    );
    const extremes = encodeFloat32(Float32Array.of(Infinity, -Infinity, Number.NaN), dtype);
    expect([...decode(extremes, dtype, 3)].map(BigInt)).toEqual([max, min, 0n]);
  });
});

test('float32 keeps every bit, NaN payloads too, at any alignment', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 64 }), fc.nat(3), (bytes, shift) => {
      const view = bytes.subarray(shift, shift + (Math.floor((bytes.length - shift) / 4) * 4 || 0));
      expect(bytesOf(decode(view, 'float32'))).toEqual(new Uint8Array(view));
      expect(encodeFloat32(decodeFloat32(view, 'float32'), 'float32')).toEqual(
        new Uint8Array(view),
      );
    }),
  );
});

test('bool is 0 or 1', () => {
  expect([...decodeFloat32(Uint8Array.of(0, 1, 2), 'bool')]).toEqual([0, 1, 1]);
  expect([...encodeFloat32(Float32Array.of(0, -0, 0.1, Number.NaN), 'bool')]).toEqual([0, 0, 1, 1]);
});

test('complex numbers decode as pairs, but are no float32', () => {
  expect([...decode(bytesOf(Float64Array.of(1, 2)), 'complex128')]).toEqual([1, 2]);
  expect(() => decodeFloat32(new Uint8Array(8), 'complex64')).toThrow('complex64');
});

test.each(DTYPES)('%s decodes to arrays of its own, or is refused by name', (dtype) => {
  const bytes = new Uint8Array(16).fill(0x11);
  if (dtype === 'string' || dtype === 'unknown') expect(() => decode(bytes, dtype)).toThrow(dtype);
  else {
    const before = decode(bytes, dtype)[0];
    const values = decode(bytes, dtype);
    bytes.fill(0);
    expect(values[0]).toBe(before);
  }
});
