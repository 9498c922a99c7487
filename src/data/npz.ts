import type { Entry, RandomAccessReader } from 'yauzl';
import { dataError, ResectError } from '../errors.js';
import {
  type ByteSource,
  checkInflatedSize,
  fileSource,
  inflate,
  memorySource,
  readHead,
  readInflated,
  subSource,
} from './bytes.js';
import { arrayColumn, arrayEnd, type Column, type ColumnFile, checkArrayFits } from './columns.js';
import { MAX_HEADER, parseNpyHeader, readNpyHeader } from './npy.js';

const STORED = 0;
const DEFLATED = 8;
/** A zip local file header without its name and extra field (APPNOTE 4.3.7). */
const LOCAL_HEADER = 30;

/**
 * The arrays of a `.npz` archive (zip or zip64). Only the directory is read here. A stored array
 * (numpy.savez) is read by range; a compressed one (numpy.savez_compressed) is inflated whole when its
 * first item is wanted, and kept.
 */
export async function openNpz(path: string): Promise<ColumnFile> {
  const source = await fileSource(path);
  const entries = await readDirectory(source, path);
  return {
    names: [...entries.keys()],
    files: [path],
    column: (name) => openEntry(source, entries.get(name)!, `${path}, array ${name}`),
  };
}

async function readDirectory(source: ByteSource, path: string): Promise<Map<string, Entry>> {
  const { fromRandomAccessReaderPromise, RandomAccessReader: Reader } = (await import('yauzl'))
    .default;
  const entries = new Map<string, Entry>();
  try {
    const reader = readerOf(source, Reader);
    const zip = await fromRandomAccessReaderPromise(reader, source.size);
    for await (const entry of zip.eachEntry()) {
      if (!entry.fileName.endsWith('.npy')) continue;
      const name = entry.fileName.slice(0, -'.npy'.length);
      if (entries.has(name))
        throw dataError('two arrays have one name', { where: path, got: name });
      entries.set(name, entry);
    }
  } catch (cause) {
    if (cause instanceof ResectError) throw cause;
    throw dataError('not a readable .npz archive', {
      where: path,
      got: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
  return entries;
}

/** yauzl's own file reader throws past every handler when a damaged archive points outside of the file. */
function readerOf(source: ByteSource, Reader: typeof RandomAccessReader): RandomAccessReader {
  return new (class extends Reader {
    override read(
      buffer: Buffer,
      offset: number,
      length: number,
      position: number,
      done: (error: Error | null) => void,
    ) {
      readInside(source, position, length)
        .then((bytes) => {
          buffer.set(bytes, offset);
          done(null);
        })
        .catch(done);
    }
  })();
}

async function readInside(source: ByteSource, position: number, length: number) {
  if (!(position >= 0 && position + length <= source.size))
    throw new RangeError(`bytes ${position} to ${position + length} of ${source.size}`);
  return source.read(position, length);
}

async function openEntry(file: ByteSource, entry: Entry, where: string): Promise<Column> {
  const body = await entryBody(file, entry, where);
  if (entry.compressionMethod === STORED) {
    const layout = await readNpyHeader(body, where);
    checkArrayFits(layout, body.size, where);
    return arrayColumn(layout, async () => body, where);
  }
  const layout = parseNpyHeader(await readHead(inflate(body, 'deflate'), MAX_HEADER, where), where);
  const size = arrayEnd(layout, where);
  if (size !== entry.uncompressedSize)
    throw dataError('the array does not have the size its archive states', {
      where,
      expected: `${entry.uncompressedSize} bytes`,
      got: `a header for ${size} bytes`,
    });
  checkInflatedSize(size, body.size, where);
  const open = () => readInflated(inflate(body, 'deflate'), size, where);
  return arrayColumn(layout, async () => memorySource(await open()), where);
}

/** The bytes of an entry as they are in the archive. */
async function entryBody(file: ByteSource, entry: Entry, where: string): Promise<ByteSource> {
  const { compressionMethod, compressedSize, relativeOffsetOfLocalHeader: offset } = entry;
  if (entry.isEncrypted()) throw dataError('the array is encrypted', { where });
  if (compressionMethod !== STORED && compressionMethod !== DEFLATED)
    throw dataError('the compression method is not supported', {
      where,
      expected: 'stored or deflated',
      got: `zip method ${compressionMethod}`,
    });
  const cutOff = dataError('the archive is damaged or cut off', { where });
  if (offset + LOCAL_HEADER > file.size) throw cutOff;
  const header = Buffer.from(await file.read(offset, LOCAL_HEADER));
  const start = offset + LOCAL_HEADER + header.readUInt16LE(26) + header.readUInt16LE(28);
  if (header.toString('latin1', 0, 4) !== 'PK\x03\x04' || start + compressedSize > file.size)
    throw cutOff;
  return subSource(file, start, compressedSize);
}
