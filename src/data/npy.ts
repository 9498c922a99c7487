import { dataError } from '../errors.js';
import { type ByteSource, fileSource } from './bytes.js';
import { type ArrayLayout, arrayColumn, type ColumnFile, checkArrayFits } from './columns.js';
import type { DType } from './dtypes.js';

/** numpy's header is a few hundred bytes; a longer one is not an array of numbers. */
export const MAX_HEADER = 1 << 16;

const dtypes: Record<string, DType> = {
  b1: 'bool',
  i1: 'int8',
  u1: 'uint8',
  i2: 'int16',
  u2: 'uint16',
  i4: 'int32',
  u4: 'uint32',
  i8: 'int64',
  u8: 'uint64',
  f2: 'float16',
  f4: 'float32',
  f8: 'float64',
};

/** The single array of a `.npy` file (numpy format 1.0 to 3.0), named `data`. */
export async function openNpy(path: string): Promise<ColumnFile> {
  const source = await fileSource(path);
  const layout = await readNpyHeader(source, path);
  checkArrayFits(layout, source.size, path);
  const column = arrayColumn(layout, async () => source, path);
  return { names: ['data'], files: [path], column: async () => column };
}

export async function readNpyHeader(source: ByteSource, where: string): Promise<ArrayLayout> {
  return parseNpyHeader(await source.read(0, Math.min(source.size, MAX_HEADER)), where);
}

/**
 * Parses the start of a `.npy` file; `bytes` may be longer or, if damaged, shorter than the header.
 * Source: numpy.lib.format.
 */
export function parseNpyHeader(bytes: Uint8Array, where: string): ArrayLayout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (Buffer.from(bytes.subarray(0, 6)).toString('latin1') !== '\x93NUMPY') {
    // A pickle starts with PROTO (0x80); numpy writes bare ones too.
    if (bytes[0] === 0x80) throw pickled(where);
    throw dataError('not a .npy array', { where, expected: 'the magic string \\x93NUMPY' });
  }
  if (bytes.length < 12) throw truncated(where);
  const major = bytes[6];
  if (major !== 1 && major !== 2 && major !== 3)
    throw dataError('unknown .npy version', { where, expected: '1, 2 or 3', got: `${major}` });
  const start = major === 1 ? 10 : 12;
  const offset = start + (major === 1 ? view.getUint16(8, true) : view.getUint32(8, true));
  if (offset > bytes.length) throw truncated(where);
  const header = Buffer.from(bytes.subarray(start, offset)).toString(
    major === 3 ? 'utf8' : 'latin1',
  );
  return { ...parseDescr(header, where), ...parseShape(header, where), offset };
}

const truncated = (where: string) => dataError('the .npy header is cut off or too long', { where });

const pickled = (where: string) =>
  dataError('pickled arrays are refused, because reading them can run any code', {
    where,
    hint: 'Convert to a numeric dtype with numpy and save again.',
  });

function parseDescr(header: string, where: string) {
  const quoted = /'descr'\s*:\s*(?:'([^']*)'|(\[))/.exec(header);
  if (!quoted) throw badHeader(header, where);
  const [, descr, structured] = quoted;
  const kind = structured ? 'structured' : descr;
  if (kind.includes('O')) throw pickled(where);
  const [, order, code] = /^([<>|=]?)(\w+)$/.exec(kind) ?? [];
  if (structured || !code || !Object.hasOwn(dtypes, code))
    throw dataError('the array is not of a supported numeric dtype', {
      where,
      expected: 'bool, integers of 8 to 64 bits, or floats of 16 to 64 bits',
      got: kind,
      hint: structured ? 'Save each field as an array of its own.' : undefined,
    });
  return { dtype: dtypes[code], bigEndian: order === '>' };
}

function parseShape(header: string, where: string) {
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header);
  const shape = /'shape'\s*:\s*\(([\d\s,L]*)\)/.exec(header);
  if (!order || !shape) throw badHeader(header, where);
  const dims = (shape[1].match(/\d+/g) ?? []).map(Number);
  return { fortran: order[1] === 'True', dims };
}

const badHeader = (header: string, where: string) =>
  dataError('the .npy header is malformed', {
    where,
    expected: "{'descr': ..., 'fortran_order': ..., 'shape': ...}",
    got: JSON.stringify(header.slice(0, 120)),
  });
