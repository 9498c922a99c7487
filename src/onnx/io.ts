import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { types } from 'node:util';
import { ioError } from '../errors.js';

/** Reads and writes go through the file system in blocks of this size. */
export const BLOCK_BYTES = 8 * 2 ** 20;

/** One read(2) or write(2) moves less than 2 GiB. */
const MAX_CALL_BYTES = 2 ** 30;

const REASONS: Record<string, string> = {
  ENOENT: 'there is no such file or folder',
  ENOTDIR: 'a part of the path is not a folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a folder',
  ELOOP: 'it is a link',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file system does not take files of that size',
  EROFS: 'the file system is read-only',
  EMFILE: 'too many files are open',
  EEXIST: 'it exists already',
};

/** An ioError for a failed file system call. */
export function ioFailure(action: string, path: string, cause: unknown) {
  const known =
    types.isNativeError(cause) && 'code' in cause ? REASONS[String(cause.code)] : undefined;
  const reason = known ?? (types.isNativeError(cause) ? cause.message : String(cause));
  return ioError(`cannot ${action} ${path}: ${reason}`, { where: path, cause });
}

/** What kind of thing a path that should be a file is instead. */
export function kindOf(stats: {
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
  isFIFO(): boolean;
  isSocket(): boolean;
  isFile(): boolean;
}): string {
  if (stats.isDirectory()) return 'a folder';
  if (stats.isSymbolicLink()) return 'a link';
  if (stats.isFIFO()) return 'a pipe';
  if (stats.isSocket()) return 'a socket';
  return stats.isFile() ? 'a file' : 'a device';
}

/**
 * Opens a regular file for reading, without waiting for a writer when it is a pipe after all.
 * @param flags further flags of open(2)
 * @throws ioError when it cannot be opened or is anything but a regular file
 */
export async function openFile(
  path: string,
  flags = 0,
): Promise<{ file: FileHandle; size: number }> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | flags);
  } catch (cause) {
    throw ioFailure('read', path, cause);
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile())
      throw ioError(`cannot read ${path}: it is not a file`, {
        where: path,
        expected: 'a regular file',
        got: kindOf(stats),
      });
    return { file, size: stats.size };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Fills `target` from a file. @throws ioError when the file ends before */
export async function readFully(
  file: FileHandle,
  path: string,
  position: number,
  target: Uint8Array,
): Promise<void> {
  let done = 0;
  while (done < target.length) {
    const length = Math.min(target.length - done, MAX_CALL_BYTES);
    const { bytesRead } = await file
      .read(target, done, length, position + done)
      .catch((cause) => Promise.reject(ioFailure('read', path, cause)));
    if (bytesRead === 0)
      throw ioError(`${path} became shorter while it was read`, {
        where: path,
        expected: `${position + target.length} bytes`,
        got: `${position + done} bytes`,
        hint: 'Wait until nothing writes to the file, then run again.',
      });
    done += bytesRead;
  }
}

/** Writes all of `source` at a position. @throws ioError */
export async function writeFully(
  file: FileHandle,
  path: string,
  source: Uint8Array,
  position: number,
): Promise<void> {
  let done = 0;
  while (done < source.length) {
    const length = Math.min(source.length - done, MAX_CALL_BYTES);
    const { bytesWritten } = await file
      .write(source, done, length, position + done)
      .catch((cause) => Promise.reject(ioFailure('write', path, cause)));
    done += bytesWritten;
  }
}
