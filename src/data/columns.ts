import { dataError } from '../errors.js';
import { type ByteSource, memorySource } from './bytes.js';
import { type DType, itemSize, product, showDims, toNumbers, viewBytes } from './dtypes.js';
import type { Preprocessing } from './preprocess.js';
import type { TensorData } from './types.js';

/** One value per example: an array of a file along its first axis, a field of records, or a folder's images. */
export interface Column {
  /** File and name, for messages. */
  readonly where: string;
  readonly length: number;
  /** Shape of an item, when all items have the same. */
  readonly itemDims?: number[];
  /** Preprocessing that the kind of data implies, unless a card says otherwise. */
  readonly implied?: Preprocessing;
  item(i: number): Promise<TensorData>;
  /** Item i of each as a number; a data error when items are not single numbers. */
  numbers(): Promise<ArrayLike<number>>;
}

/** A data file (or pair, or folder) seen as named columns. */
export interface ColumnFile {
  readonly names: string[];
  readonly files: string[];
  column(name: string): Promise<Column>;
  /** A column of strings, where the format has them. */
  texts?(name: string): Promise<string[]>;
}

/** How a dense array lies in its bytes. */
export interface ArrayLayout {
  dtype: DType;
  dims: number[];
  /** Bytes before the first element. */
  offset: number;
  bigEndian: boolean;
  /** First axis fastest (Fortran order). */
  fortran: boolean;
}

/** Bytes from the start of the file to the end of the array; a data error when that is absurd. */
export function arrayEnd(layout: ArrayLayout, where: string): number {
  const end = layout.offset + product(layout.dims) * itemSize(layout.dtype);
  if (!Number.isSafeInteger(end))
    throw dataError('the header promises an impossible size', {
      where,
      got: showDims(layout.dims),
    });
  return end;
}

/** Throws unless `size` bytes hold the whole array; nothing has been allocated until here. */
export function checkArrayFits(layout: ArrayLayout, size: number, where: string): void {
  const end = arrayEnd(layout, where);
  if (end > size)
    throw dataError('the file is shorter than its header promises', {
      where,
      expected: `${end} bytes for ${layout.dtype} ${showDims(layout.dims)}`,
      got: `${size} bytes`,
    });
}

/**
 * An array as a column of its items along the first axis, read by range. `open` is called once, when the
 * first item is wanted. An array of rank 2 or more in Fortran order is read whole, once, and kept in C order.
 */
export function arrayColumn(
  layout: ArrayLayout,
  open: () => Promise<ByteSource>,
  where: string,
): Column {
  const { dtype, dims } = layout;
  if (dims.length === 0)
    throw dataError('the array has no axis of examples', {
      where,
      expected: 'a first axis that counts the examples',
      got: 'a single value',
      hint: 'Give it in a data card, for example `inputs: {sr: {value: 16000}}`.',
    });
  const [length, ...itemDims] = dims;
  const itemBytes = product(itemDims) * itemSize(dtype);
  let opened: Promise<ByteSource> | undefined;
  const body = () => {
    opened ??= open().then((source) => bodyInCOrder(source, layout));
    return opened;
  };
  const tensor = async (offset: number, bytes: number, shape: number[]): Promise<TensorData> => {
    const raw = await (await body()).read(offset, bytes);
    return {
      dtype,
      dims: shape,
      data: viewBytes(layout.bigEndian ? swap(raw, dtype) : raw, dtype),
    };
  };
  return {
    where,
    length,
    itemDims,
    item: (i) => tensor(i * itemBytes, itemBytes, itemDims),
    async numbers() {
      if (product(itemDims) !== 1) throw notScalar(where, itemDims);
      return toNumbers(await tensor(0, length * itemBytes, [length]));
    },
  };
}

export const notScalar = (where: string, itemDims: number[]) =>
  dataError('one number per example was expected', {
    where,
    got: `items of shape ${showDims(itemDims)}`,
  });

async function bodyInCOrder(source: ByteSource, layout: ArrayLayout): Promise<ByteSource> {
  const { dtype, dims, offset } = layout;
  const size = product(dims) * itemSize(dtype);
  const read = (start: number, length: number) => source.read(offset + start, length);
  if (!layout.fortran || dims.length < 2) return { size, read };
  return memorySource(fortranToC(await read(0, size), dims, itemSize(dtype)));
}

/** Rearranges elements of `width` bytes (1, 2, 4 or 8) from first-axis-fastest to last-axis-fastest. */
export function fortranToC(bytes: Uint8Array, dims: number[], width: number): Uint8Array {
  const raw = { 1: 'uint8', 2: 'uint16', 4: 'uint32', 8: 'uint64' } as const;
  const from = viewBytes(bytes, raw[width as keyof typeof raw]);
  const to = from.slice();
  const strides = dims.map((_, axis) => product(dims.slice(0, axis)));
  const index = new Array<number>(dims.length).fill(0);
  let at = 0;
  for (let i = 0; i < to.length; i++) {
    to[i] = from[at];
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      at += strides[axis];
      if (++index[axis] < dims[axis]) break;
      at -= strides[axis] * dims[axis];
      index[axis] = 0;
    }
  }
  return new Uint8Array(to.buffer);
}

/** Reverses the bytes of every element in place. */
function swap(bytes: Uint8Array, dtype: DType): Uint8Array {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = itemSize(dtype);
  if (width === 2) buffer.swap16();
  if (width === 4) buffer.swap32();
  if (width === 8) buffer.swap64();
  return bytes;
}
