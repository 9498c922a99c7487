import type { Stats } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { pipeline, Readable } from 'node:stream';
import { createGunzip, createInflateRaw } from 'node:zlib';
import { dataError, ioError, ResectError } from '../errors.js';

/** Bytes that can be read by range, so that a large file is never held whole. */
export interface ByteSource {
  readonly size: number;
  /** A fresh copy of `length` bytes; the range must lie inside. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** No deflate stream expands more than this: 258 bytes from 2 bits (RFC 1951). */
const DEFLATE_MAX_RATIO = 1032;
/** Compressed arrays are inflated in memory; beyond this they must be stored uncompressed. */
const MAX_INFLATED_BYTES = 2 ** 31;

const CHUNK = 1 << 16;

/** Throws an I/O error unless the path is a regular file: opening a pipe or device could wait for ever. */
export async function statFile(path: string): Promise<Stats> {
  const info = await statPath(path);
  if (!info.isFile()) throw ioError('not a regular file', { where: path });
  return info;
}

export async function statPath(path: string): Promise<Stats> {
  try {
    return await stat(path);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const why = code === 'ENOENT' ? 'no such file' : `cannot be read (${code})`;
    throw ioError(why, { where: path, cause });
  }
}

export async function fileSource(path: string): Promise<ByteSource> {
  const { size } = await statFile(path);
  return { size, read: (offset, length) => readRange(path, offset, length) };
}

export const memorySource = (bytes: Uint8Array): ByteSource => ({
  size: bytes.byteLength,
  read: async (offset, length) => bytes.slice(offset, offset + length),
});

export const subSource = (source: ByteSource, start: number, size: number): ByteSource => ({
  size,
  read: (offset, length) => source.read(start + offset, length),
});

async function readRange(path: string, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const file = await open(path).catch((cause) => {
    throw ioError(`cannot be read (${cause.code})`, { where: path, cause });
  });
  try {
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0)
        throw dataError('the file ends too early', {
          where: path,
          expected: `${offset + length} bytes`,
          got: `${offset + done}`,
        });
      done += bytesRead;
    }
  } finally {
    await file.close();
  }
  return bytes;
}

/** The whole file as UTF-8 text, without its byte order mark. */
export async function readText(path: string): Promise<string> {
  const { size } = await statFile(path);
  // V8's longest string; text is also tokenized in memory.
  if (size > 2 ** 29 - 24)
    throw dataError('the text file is too large', {
      where: path,
      expected: 'at most 512 MiB',
      got: `${size} bytes`,
      hint: 'Give a slice of it.',
    });
  const bytes = await readRange(path, 0, size);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw dataError('the text is not UTF-8', { where: path, cause });
  }
}

/** The bytes after inflation, of a gzip file or a bare deflate stream. */
export function inflate(source: ByteSource, format: 'gzip' | 'deflate'): Readable {
  const inflated = format === 'gzip' ? createGunzip() : createInflateRaw();
  // Whoever reads the result sees the errors of both.
  pipeline(Readable.from(chunks(source)), inflated, () => {});
  return inflated;
}

async function* chunks(source: ByteSource): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < source.size; at += CHUNK)
    yield await source.read(at, Math.min(CHUNK, source.size - at));
}

/** Up to `length` bytes from the start of a stream, which is then given up. */
export async function readHead(stream: Readable, length: number, where: string) {
  const chunks: Uint8Array[] = [];
  let got = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      chunks.push(chunk);
      got += chunk.length;
      if (got >= length) break;
    }
  } catch (cause) {
    throw damaged(where, cause);
  }
  return Uint8Array.from(Buffer.concat(chunks).subarray(0, length));
}

/** All of an inflated stream, which must hold exactly `length` bytes. Call `checkInflatedSize` first. */
export async function readInflated(stream: Readable, length: number, where: string) {
  const bytes = new Uint8Array(length);
  let done = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      if (chunk.length > length - done) throw new RangeError('more bytes than promised');
      bytes.set(chunk, done);
      done += chunk.length;
    }
  } catch (cause) {
    throw damaged(where, cause);
  }
  if (done < length)
    throw dataError('the compressed data ends too early', {
      where,
      expected: `${length} bytes`,
      got: `${done}`,
    });
  return bytes;
}

const damaged = (where: string, cause: unknown) => {
  if (cause instanceof ResectError) return cause;
  return dataError('the compressed data is damaged', {
    where,
    got: cause instanceof Error ? cause.message : String(cause),
    cause,
  });
};

/** Refuses a promised size that no deflate stream of `compressed` bytes can hold, or that is too large. */
export function checkInflatedSize(promised: number, compressed: number, where: string): void {
  if (promised > compressed * DEFLATE_MAX_RATIO)
    throw dataError('the header promises more than the compressed data can hold', {
      where,
      expected: `at most ${compressed * DEFLATE_MAX_RATIO} bytes`,
      got: `${promised} bytes promised`,
    });
  if (promised > MAX_INFLATED_BYTES)
    throw dataError('the compressed array is too large to inflate in memory', {
      where,
      expected: `at most ${MAX_INFLATED_BYTES} bytes`,
      got: `${promised} bytes`,
      hint: 'Store it uncompressed (numpy.savez or numpy.save): it is then read piece by piece.',
    });
}
