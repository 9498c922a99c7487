import { modelError } from '../errors.js';
import { type DType, dtypeBits } from './dtypes.js';
import type { TensorProto } from './schema.js';

type TypedField = 'floatData' | 'doubleData' | 'int32Data' | 'int64Data' | 'uint64Data';

/** The typed field that holds elements of a dtype; undefined for strings and unknown types. */
export function typedField(dtype: DType): TypedField | undefined {
  switch (dtype) {
    case 'unknown':
    case 'string':
      return undefined;
    case 'float32':
    case 'complex64':
      return 'floatData';
    case 'float64':
    case 'complex128':
      return 'doubleData';
    case 'int64':
      return 'int64Data';
    case 'uint32':
    case 'uint64':
      return 'uint64Data';
    default:
      return 'int32Data';
  }
}

/** Bytes of one varint's value: int32Data holds whole bytes of 2- and 4-bit elements. */
const varintWidth = (dtype: DType) => Math.ceil(dtypeBits(dtype) / 8);

/**
 * The values of a typed field as raw bytes: a view on the model where the wire form is the same.
 * @throws modelError when the field does not hold exactly `byteLength` bytes of values
 */
export function readTyped(tensor: TensorProto, dtype: DType, byteLength: number): Uint8Array {
  const field = typedField(dtype);
  const packed = joined((field && tensor[field]) ?? []);
  const raw =
    field === 'floatData' || field === 'doubleData'
      ? packed
      : decodeVarints(packed, varintWidth(dtype), byteLength);
  if (raw?.length === byteLength) return raw;
  throw modelError('a tensor does not hold as many values as its shape says', {
    where: `tensor "${tensor.name ?? ''}"`,
    expected: `${byteLength} bytes of ${dtype} for shape [${tensor.dims.join(', ')}]`,
    got: raw ? `${raw.length} bytes` : `other than that in ${packed.length} packed bytes`,
    hint: 'The file is damaged: get or export the model again.',
  });
}

/** Raw bytes as the content of the typed field of their dtype. */
export function writeTyped(raw: Uint8Array, dtype: DType): Pick<TensorProto, TypedField> {
  const field = typedField(dtype);
  if (!field) throw new Error(`no typed field holds ${dtype}`);
  const fixed = field === 'floatData' || field === 'doubleData';
  return {
    [field]: [fixed ? raw : encodeVarints(raw, varintWidth(dtype), /^int(8|16|32)$/.test(dtype))],
  };
}

function joined(pieces: Uint8Array[]): Uint8Array {
  return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
}

/** An array of elements of `width` bytes; 8-byte elements are low and high halves. */
function elementsOf(width: number, buffer: ArrayBuffer) {
  return width === 1
    ? new Uint8Array(buffer)
    : width === 2
      ? new Uint16Array(buffer)
      : new Uint32Array(buffer);
}

/**
 * Decodes varints to little-endian integers of `width` bytes, higher bits dropped.
 * @returns undefined unless `packed` is exactly the varints that fill `byteLength` bytes
 */
function decodeVarints(
  packed: Uint8Array,
  width: number,
  byteLength: number,
): Uint8Array | undefined {
  const count = byteLength / width;
  if (count > packed.length) return undefined;
  const out = elementsOf(width, new ArrayBuffer(byteLength));
  let pos = 0;
  for (let i = 0; i < count; i++) {
    let low = 0;
    let high = 0;
    for (let shift = 0, byte = 0x80; byte & 0x80; shift += 7) {
      if (pos === packed.length || shift > 63) return undefined;
      byte = packed[pos++];
      if (shift < 32) low |= (byte & 0x7f) << shift;
      if (shift > 24)
        high |= shift < 32 ? (byte & 0x7f) >> (32 - shift) : (byte & 0x7f) << (shift - 32);
    }
    if (width < 8) out[i] = low;
    else {
      out[2 * i] = low;
      out[2 * i + 1] = high;
    }
  }
  return pos === packed.length ? new Uint8Array(out.buffer) : undefined;
}

/** Encodes little-endian integers of `width` bytes as varints of 64 bits. */
function encodeVarints(raw: Uint8Array, width: number, signed: boolean): Uint8Array {
  const values = elementsOf(width, new Uint8Array(raw).buffer);
  const count = raw.length / width;
  const unusedBits = 32 - 8 * Math.min(width, 4);
  const lowOf = (i: number) =>
    width === 8
      ? values[2 * i]
      : signed
        ? ((values[i] << unusedBits) >> unusedBits) >>> 0
        : values[i];
  const highOf = (i: number, low: number) =>
    width === 8 ? values[2 * i + 1] : signed && low >>> 31 ? 0xffff_ffff : 0;

  let length = 0;
  for (let i = 0; i < count; i++) {
    const low = lowOf(i);
    const high = highOf(i, low);
    const bits = high ? 64 - Math.clz32(high) : 32 - Math.clz32(low | 1);
    length += Math.ceil(bits / 7);
  }
  const packed = new Uint8Array(length);
  let pos = 0;
  for (let i = 0; i < count; i++) {
    let low = lowOf(i);
    let high = highOf(i, low);
    while (high || low > 0x7f) {
      packed[pos++] = (low & 0x7f) | 0x80;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    packed[pos++] = low;
  }
  return packed;
}
