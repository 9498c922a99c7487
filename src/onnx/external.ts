import { constants, lstatSync, type Stats } from 'node:fs';
import nodePath from 'node:path';
import { ioError, modelError } from '../errors.js';
import { BLOCK_BYTES, ioFailure, kindOf, openFile, readFully } from './io.js';
import { DataLocation, type TensorProto } from './schema.js';

/** A part of a file that holds the values of a tensor. */
export interface ExternalRange {
  path: string;
  offset: number;
  length: number;
  fileSize: number;
}

export const isExternal = (tensor: TensorProto): boolean =>
  tensor.dataLocation === DataLocation.external;

/** The value of an `external_data` entry. Later entries win, as in other readers. */
export const externalEntry = (tensor: TensorProto, key: string): string | undefined =>
  tensor.externalData?.findLast((entry) => entry.key === key)?.value;

/**
 * The file that holds an external tensor's values, checked before anything is opened: its location
 * is relative and stays below the model's folder, and neither the file nor a folder on the way is a
 * link, a pipe or a device.
 * @param modelPath path of the model file; the location is relative to its folder
 * @throws ioError when the location is unsafe or there is no such file, modelError when there is none
 */
export function externalFile(
  modelPath: string | undefined,
  tensor: TensorProto,
): { path: string; stats: Stats } {
  const where = `${modelPath ?? 'model'}: tensor "${tensor.name ?? ''}"`;
  const location = externalEntry(tensor, 'location');
  if (!location)
    throw modelError('a tensor is external, but the model does not say in which file', {
      where,
      expected: 'an external_data entry "location"',
      hint: 'Export the model again.',
    });
  if (modelPath === undefined)
    throw ioError('the model keeps weights in another file, but was not itself read from a file', {
      where,
      hint: 'Read the model from its path.',
    });

  const parts = location.split(/[\\/]/).filter((part) => part !== '' && part !== '.');
  if (
    nodePath.win32.isAbsolute(location) ||
    parts.includes('..') ||
    /\0/.test(location) ||
    !parts.length
  )
    throw ioError('the model points to weights outside its own folder', {
      where,
      expected: "a file below the model's folder",
      got: JSON.stringify(location),
      hint: 'Do not use this model unless you trust its source; it may be made to read other files.',
    });

  let file = nodePath.dirname(modelPath);
  for (const part of parts.slice(0, -1)) {
    file = nodePath.join(file, part);
    const stats = lstat(file, where);
    if (!stats.isDirectory()) throw notPlain(file, where, 'a folder', stats);
  }
  file = nodePath.join(file, parts[parts.length - 1]);
  const stats = lstat(file, where);
  if (!stats.isFile()) throw notPlain(file, where, 'a regular file', stats);
  return { path: file, stats };
}

function lstat(file: string, where: string): Stats {
  try {
    return lstatSync(file);
  } catch (cause) {
    const { message, detail } = ioFailure('read the weights from', file, cause);
    throw ioError(message, { ...detail, where, hint: 'Put the weights beside the model.' });
  }
}

const notPlain = (file: string, where: string, expected: string, stats: Stats) =>
  ioError(`the weights cannot be read from ${file}`, {
    where,
    expected,
    got: kindOf(stats),
    hint: 'Put a copy of the weights there; links are not followed.',
  });

/**
 * Where an external tensor's values are, checked against the file. Ranges may overlap, be shared and
 * start anywhere.
 * @param byteLength bytes that dims and dtype ask for; undefined when the dtype is unknown
 * @throws modelError when offset or length are no numbers, reach past the end of the file or do not
 *   agree with `byteLength`; and as `externalFile`
 */
export function externalRange(
  modelPath: string | undefined,
  tensor: TensorProto,
  byteLength: number | undefined,
): ExternalRange {
  const file = externalFile(modelPath, tensor);
  const offset = externalInteger(tensor, 'offset') ?? 0;
  const stored = externalInteger(tensor, 'length');
  const length = byteLength ?? stored ?? Math.max(0, file.stats.size - offset);
  const fail = (expected: string, got: string) =>
    modelError('the range of external weights is wrong', {
      where: `${file.path}: tensor "${tensor.name ?? ''}"`,
      expected,
      got,
      hint: 'The model and its weights do not belong together, or one is damaged: get both again.',
    });
  if (stored !== undefined && stored !== length)
    throw fail(`${length} bytes, for its shape and type`, `${stored} bytes`);
  if (offset + length > file.stats.size)
    throw fail(`bytes up to ${offset + length}`, `a file of ${file.stats.size} bytes`);
  return { path: file.path, offset, length, fileSize: file.stats.size };
}

/** An `external_data` entry that must be a whole number. */
export function externalInteger(tensor: TensorProto, key: 'offset' | 'length'): number | undefined {
  const text = externalEntry(tensor, key);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw modelError(`the ${key} of external weights is not a number`, {
    where: `tensor "${tensor.name ?? ''}"`,
    expected: 'a whole number in decimal digits',
    got: JSON.stringify(text),
    hint: 'Export the model again.',
  });
}

/** Opens a file of weights; not through a link, even one put there since it was checked. */
const openWeights = (file: string) => openFile(file, constants.O_NOFOLLOW ?? 0);

/** Reads a whole range. */
export async function readRange(range: ExternalRange): Promise<Uint8Array> {
  const bytes = new Uint8Array(range.length);
  const { file } = await openWeights(range.path);
  try {
    await readFully(file, range.path, range.offset, bytes);
  } finally {
    await file.close();
  }
  return bytes;
}

/** Reads a range block by block. A block is valid until the next one is asked for. */
export async function* rangeBlocks({
  path,
  offset,
  length,
}: Omit<ExternalRange, 'fileSize'>): AsyncGenerator<Uint8Array> {
  const block = new Uint8Array(Math.min(BLOCK_BYTES, length));
  const { file } = await openWeights(path);
  try {
    for (let done = 0; done < length; done += block.length) {
      const part = block.subarray(0, Math.min(block.length, length - done));
      await readFully(file, path, offset + done, part);
      yield part;
    }
  } finally {
    await file.close();
  }
}
