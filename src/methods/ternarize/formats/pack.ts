import { dataError } from '../../../errors.js';

/**
 * How codes are packed into bytes: digits code - low in a positional system, the first code in the
 * lowest place. Bytes that are not filled hold codes 0.
 */
export interface Packing {
  base: number;
  perByte: number;
  low: number;
}

/** Five codes of {-1, 0, 1} to a byte. */
export const trits: Packing = { base: 3, perByte: 5, low: -1 };
/** Four codes of {-2, ..., 1} to a byte: MatMulNBits with bits = 2 and its default zero point. */
export const twoBits: Packing = { base: 4, perByte: 4, low: -2 };
/** Two codes of {-8, ..., 7} to a byte: MatMulNBits with bits = 4 and its default zero point. */
export const fourBits: Packing = { base: 16, perByte: 2, low: -8 };

/** A code of {-128, ..., 127} to a byte: MatMulNBits with bits = 8 and its default zero point. */
export const eightBits: Packing = { base: 256, perByte: 1, low: -128 };

/** The packing of that many bits. */
export const packingOf = { 2: twoBits, 4: fourBits, 8: eightBits };

/** The packing of the fewest bits that has digits for all codes. */
export function narrowest(codes: Int8Array): Packing {
  const fits = ({ base, low }: Packing) => codes.every((c) => c >= low && c < low + base);
  return [trits, twoBits, fourBits].find(fits) ?? eightBits;
}

/** A matrix whose rows are packed one by one, each padded with codes 0 to `width`. */
export interface PackedShape {
  rows: number;
  cols: number;
  /** At least `cols`. Default: `cols` rounded up to whole bytes. */
  width?: number;
}

const bytesPerRow = ({ cols, width = cols }: PackedShape, { perByte }: Packing): number =>
  Math.ceil(width / perByte);

/**
 * Packs codes [rows, cols].
 * @returns [rows, ceil(width / perByte)]
 */
export function packCodes(codes: Int8Array, shape: PackedShape, packing: Packing): Uint8Array {
  const { rows, cols } = shape;
  const { base, perByte, low } = packing;
  if (codes.length !== rows * cols) throw new Error(`${codes.length} codes of [${rows}, ${cols}]`);
  const bytes = bytesPerRow(shape, packing);
  const packed = new Uint8Array(rows * bytes);
  for (let r = 0, b = 0; r < rows; r++) {
    const row = r * cols;
    for (let first = 0; first < bytes * perByte; first += perByte, b++) {
      let byte = 0;
      for (let i = first + perByte - 1; i >= first; i--) {
        const digit = (i < cols ? codes[row + i] : 0) - low;
        if (digit < 0 || digit >= base) throw new Error(`no digit for the code ${digit + low}`);
        byte = byte * base + digit;
      }
      packed[b] = byte;
    }
  }
  return packed;
}

/**
 * The codes [rows, cols] that `packCodes` packed.
 * @throws {ResectError} exit 6 when the bytes are not as many as that, or not made of such digits
 */
export function unpackCodes(packed: Uint8Array, shape: PackedShape, packing: Packing): Int8Array {
  const { rows, cols } = shape;
  const { base, perByte } = packing;
  const bytes = bytesPerRow(shape, packing);
  if (packed.length !== rows * bytes) {
    throw dataError('Packed codes are not as many as their shape says.', {
      expected: `${rows * bytes} bytes for [${rows}, ${cols}]`,
      got: `${packed.length} bytes`,
    });
  }
  const table = codeTable(packing);
  const codes = new Int8Array(rows * cols);
  for (let b = 0; b < packed.length; b++) {
    if (packed[b] >= base ** perByte) {
      throw dataError('A byte does not hold packed codes.', {
        where: `byte ${b}`,
        expected: `at most ${base ** perByte - 1}`,
        got: String(packed[b]),
      });
    }
    const row = Math.floor(b / bytes);
    const first = (b % bytes) * perByte;
    for (let i = first; i < Math.min(first + perByte, cols); i++)
      codes[row * cols + i] = table[packed[b] * perByte + i - first];
  }
  return codes;
}

/** The codes that each byte stands for, [base^perByte, perByte]. */
export function codeTable({ base, perByte, low }: Packing): Int8Array {
  const table = new Int8Array(base ** perByte * perByte);
  for (let k = 0; k < table.length; k++)
    table[k] = (Math.floor(Math.floor(k / perByte) / base ** (k % perByte)) % base) + low;
  return table;
}
