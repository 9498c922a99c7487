import { dataError } from '../errors.js';
import {
  type ByteSource,
  checkInflatedSize,
  fileSource,
  inflate,
  memorySource,
  readHead,
  readInflated,
} from './bytes.js';
import {
  type ArrayLayout,
  arrayColumn,
  arrayEnd,
  type Column,
  type ColumnFile,
  checkArrayFits,
} from './columns.js';
import type { DType } from './dtypes.js';

const dtypes: Record<number, DType> = {
  8: 'uint8',
  9: 'int8',
  11: 'int16',
  12: 'int32',
  13: 'float32',
  14: 'float64',
};
const MAX_HEADER = 4 + 4 * 255;

/**
 * IDX files, as MNIST and its successors come in, each gzipped or not: items and, when a second file is
 * given, labels. Bytes of rank 3 or more are pixels: their implied scale is 1/255, as for any image.
 * Source: the format's description on the MNIST page.
 */
export async function openIdx(data: string, labels?: string): Promise<ColumnFile> {
  const columns: Record<string, Column> = { data: await openIdxArray(data) };
  if (labels !== undefined) columns.label = await openIdxArray(labels);
  return {
    names: Object.keys(columns),
    files: labels === undefined ? [data] : [data, labels],
    column: async (name) => columns[name],
  };
}

async function openIdxArray(path: string): Promise<Column> {
  const file = await fileSource(path);
  const magic = await file.read(0, Math.min(2, file.size));
  const gzipped = magic[0] === 0x1f && magic[1] === 0x8b;
  const head = gzipped
    ? await readHead(inflate(file, 'gzip'), MAX_HEADER, path)
    : await file.read(0, Math.min(MAX_HEADER, file.size));
  const layout = parseIdxHeader(head, path);
  const pixels = layout.dtype === 'uint8' && layout.dims.length >= 3;
  const column = arrayColumn(layout, await idxBody(path, file, layout, gzipped), path);
  return { ...column, implied: pixels ? { scale: 1 / 255 } : undefined };
}

async function idxBody(path: string, file: ByteSource, layout: ArrayLayout, gzipped: boolean) {
  if (!gzipped) {
    checkArrayFits(layout, file.size, path);
    return async () => file;
  }
  const size = arrayEnd(layout, path);
  checkInflatedSize(size, file.size, path);
  return async () => memorySource(await readInflated(inflate(file, 'gzip'), size, path));
}

function parseIdxHeader(bytes: Uint8Array, where: string): ArrayLayout {
  const [zero, alsoZero, code, rank] = bytes;
  const dtype = dtypes[code];
  if (zero !== 0 || alsoZero !== 0 || !dtype || !rank)
    throw dataError('not an IDX file', {
      where,
      expected: 'two zero bytes, a type code and the number of axes',
      got: Buffer.from(bytes.subarray(0, 4)).toString('hex') || 'nothing',
    });
  const offset = 4 + 4 * rank;
  if (bytes.length < offset) throw dataError('the IDX header is cut off', { where });
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const dims = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  return { dtype, dims, offset, bigEndian: true, fortran: false };
}
