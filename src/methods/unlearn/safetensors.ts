// The safetensors container: 8 bytes with the length of a JSON header (little-endian), the header, the
// values. https://github.com/huggingface/safetensors describes it.

import { constants } from 'node:buffer';
import { z } from 'zod';
import type { Floats } from '../../autodiff/optimizer.js';
import { type ByteSource, fileSource } from '../../data/bytes.js';
import { dataError } from '../../errors.js';
import { writeAtomically } from '../../onnx/atomic.js';
import { writeFully } from '../../onnx/io.js';

const ARRAYS = { F32: Float32Array, F64: Float64Array };
const METADATA = '__metadata__';
/** The limit of the original library. */
const MAX_HEADER = 100_000_000;

export interface FloatTensor {
  name: string;
  dtype: keyof typeof ARRAYS;
  shape: readonly number[];
}

/** Named tensors of floats, of which one at a time need be in memory. */
export interface TensorStore {
  readonly metadata: Readonly<Record<string, string>>;
  /** Sorted by name (UTF-16 code units). */
  readonly tensors: readonly FloatTensor[];
  /** The values of one of them, row-major: not to be written to. */
  read(name: string): Promise<Floats>;
}

/** Order of names; independent of the locale. */
export const byName = (a: { name?: string }, b: { name?: string }): number => {
  const [x = '', y = ''] = [a.name, b.name];
  return x < y ? -1 : Number(x > y);
};

export const elementsOf = (shape: readonly number[]): number =>
  shape.reduce((count, dim) => count * dim, 1);

const byteLengthOf = ({ dtype, shape }: FloatTensor): number =>
  elementsOf(shape) * ARRAYS[dtype].BYTES_PER_ELEMENT;

/**
 * Writes a file, whole or not at all; values are streamed tensor by tensor.
 * @throws ioError when it exists and `force` is not set, or cannot be written; dataError for a tensor
 *   whose name the format keeps for itself
 */
export async function writeSafetensors(
  path: string,
  { metadata, tensors, read }: TensorStore,
  force: boolean,
): Promise<void> {
  // Wider types first, so that all values are aligned in a mapped file, too.
  const ordered = (['F64', 'F32'] as const).flatMap((dtype) =>
    tensors.filter((tensor) => tensor.dtype === dtype),
  );
  const entries = new Map<string, unknown>([[METADATA, metadata]]);
  let end = 0;
  for (const tensor of ordered) {
    const { name, dtype, shape } = tensor;
    if (name === METADATA)
      throw dataError('a parameter has a name that safetensors files keep for themselves', {
        where: `tensor "${name}"`,
        hint: 'Exclude it, or rename it in the model.',
      });
    const begin = end;
    end += byteLengthOf(tensor);
    entries.set(name, { dtype, shape, data_offsets: [begin, end] });
  }
  const head = encodeHeader(entries);
  await writeAtomically([path], force, async ([file]) => {
    await writeFully(file, path, head, 0);
    let position = head.length;
    for (const tensor of ordered) {
      const { buffer, byteOffset, byteLength } = await read(tensor.name);
      if (byteLength !== byteLengthOf(tensor))
        throw new Error(`${byteLength} bytes came for tensor "${tensor.name}"`);
      await writeFully(file, path, new Uint8Array(buffer, byteOffset, byteLength), position);
      position += byteLength;
    }
  });
}

function encodeHeader(entries: ReadonlyMap<string, unknown>): Uint8Array {
  // Not through an object, which would put names that look like numbers first and lose `__proto__`.
  const members = [...entries].map(
    ([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`,
  );
  const json = Buffer.from(`{${members.join()}}`);
  const length = Math.ceil(json.length / 8) * 8;
  const head = Buffer.alloc(8 + length, ' ');
  head.writeBigUInt64LE(BigInt(length));
  json.copy(head, 8);
  return head;
}

/**
 * Opens a file of F32 and F64 tensors; values are read when asked for.
 * @throws dataError when it is not a whole and well-formed safetensors file, or has tensors of other
 *   types; ioError when it cannot be read
 */
export async function openSafetensors(path: string): Promise<TensorStore> {
  const source = await fileSource(path);
  const { header, start } = await readHeader(source, path);
  const metadata = parseMetadata(header.get(METADATA) ?? {}, path);
  header.delete(METADATA);
  const placed = [...header].map(([name, entry]) => parseEntry(name, entry, path));
  checkLayout(placed, source.size - start, path);
  const byTensorName = new Map(placed.map((tensor) => [tensor.name, tensor]));
  return {
    metadata,
    tensors: placed.map(({ name, dtype, shape }) => ({ name, dtype, shape })).sort(byName),
    async read(name) {
      const tensor = byTensorName.get(name);
      if (!tensor) throw new Error(`no tensor "${name}" in ${path}`);
      const bytes = await source.read(start + tensor.begin, byteLengthOf(tensor));
      const { buffer, byteOffset } = bytes;
      return new ARRAYS[tensor.dtype](buffer as ArrayBuffer, byteOffset, elementsOf(tensor.shape));
    },
  };
}

const HINT = 'The file is damaged or of another kind: compute and save it again.';

const damaged = (where: string, expected: string, got: string) =>
  dataError('not a whole safetensors file of floats', { where, expected, got, hint: HINT });

async function readHeader(
  source: ByteSource,
  path: string,
): Promise<{ header: Map<string, unknown>; start: number }> {
  if (source.size < 8) throw damaged(path, 'at least 8 bytes', `${source.size}`);
  const prefix = await source.read(0, 8);
  const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  const room = Math.min(source.size - 8, MAX_HEADER);
  if (length > room) throw damaged(path, `a header of at most ${room} bytes`, `${length} bytes`);
  const bytes = await source.read(8, length);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw damaged(path, 'a JSON header', cause instanceof Error ? cause.message : String(cause));
  }
  if (!isObject(header)) throw damaged(path, 'a JSON object as header', typeof header);
  return { header: new Map(Object.entries(header)), start: 8 + length };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parseMetadata(value: unknown, path: string): Record<string, string> {
  const parsed = z.record(z.string(), z.string()).safeParse(value);
  if (!parsed.success) throw damaged(`${path}: ${METADATA}`, 'an object of strings', show(value));
  return parsed.data;
}

type PlacedTensor = FloatTensor & { begin: number; end: number };

function parseEntry(name: string, entry: unknown, path: string): PlacedTensor {
  const where = `${path}: tensor "${name}"`;
  if (!isObject(entry)) throw damaged(where, 'an object', show(entry));
  const { dtype, shape, data_offsets: offsets } = entry;
  if (dtype !== 'F32' && dtype !== 'F64') throw damaged(where, 'dtype F32 or F64', show(dtype));
  if (!isSizes(shape)) throw damaged(where, 'a shape of whole numbers', show(shape));
  if (!isSizes(offsets) || offsets.length !== 2)
    throw damaged(where, 'data_offsets: [begin, end]', show(offsets));
  const [begin, end] = offsets;
  const length = byteLengthOf({ name, dtype, shape });
  if (end - begin !== length)
    throw damaged(where, `${length} bytes for ${dtype} ${show(shape)}`, `${end - begin} bytes`);
  if (length > constants.MAX_LENGTH)
    throw damaged(where, `at most ${constants.MAX_LENGTH} bytes`, `${length} bytes`);
  return { name, dtype, shape, begin, end };
}

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

/** The tensors have to fill the rest of the file, without holes and overlaps. */
function checkLayout(placed: readonly PlacedTensor[], size: number, path: string): void {
  let position = 0;
  for (const { name, begin, end } of [...placed].sort(
    (a, b) => a.begin - b.begin || a.end - b.end,
  )) {
    if (begin !== position)
      throw damaged(`${path}: tensor "${name}"`, `values from byte ${position} on`, `${begin}`);
    position = end;
  }
  if (position !== size) throw damaged(path, `${position} bytes of values`, `${size} bytes`);
}

const show = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 80);
