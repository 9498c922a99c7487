import type { ColumnData, RowGroup } from 'hyparquet';
import { dataError } from '../errors.js';
import { type ByteSource, fileSource } from './bytes.js';
import type { ColumnFile } from './columns.js';
import { recordColumns } from './records.js';

/** Rows of one row group, and the pieces in which one of its columns was decoded. */
interface DecodedGroup {
  start: number;
  end: number;
  pieces: Promise<ColumnData[]>;
}

/**
 * A parquet table. A column is decoded one row group at a time, and its last row group is kept: reading
 * rows in ascending order decodes everything once.
 */
export async function openParquet(path: string): Promise<ColumnFile> {
  const [{ parquetMetadataAsync, parquetRead, parquetSchema }, { compressors }, source] =
    await Promise.all([import('hyparquet'), import('hyparquet-compressors'), fileSource(path)]);
  const file = asyncBuffer(source);
  const { metadata, names } = await readable(path, async () => {
    const parsed = await parquetMetadataAsync(file);
    const columns = parquetSchema(parsed).children.map((child) => child.element.name);
    return { metadata: parsed, names: columns };
  });
  const groups = rowGroups(metadata.row_groups, path);
  const kept = new Map<string, DecodedGroup>();

  const decode = (name: string, rowStart: number, rowEnd: number) =>
    readable(path, async () => {
      const pieces: ColumnData[] = [];
      await parquetRead({
        file,
        metadata,
        columns: [name],
        rowStart,
        rowEnd,
        compressors,
        onChunk: (piece) => pieces.push(piece),
      });
      return pieces;
    });
  const groupOf = (name: string, i: number) => {
    const last = kept.get(name);
    if (last && last.start <= i && i < last.end) return last;
    const { start, end } = groups.find((group) => i < group.end)!;
    const group = { start, end, pieces: decode(name, start, end) };
    kept.set(name, group);
    return group;
  };
  return recordColumns({
    names,
    length: groups.at(-1)?.end ?? 0,
    files: [path],
    async value(name, i) {
      const pieces = await groupOf(name, i).pieces;
      const piece = pieces.find(({ rowStart, rowEnd }) => rowStart <= i && i < rowEnd);
      return piece?.columnData[i - piece.rowStart];
    },
    where: (i) => `${path}, row ${i}`,
  });
}

/** The file as hyparquet wants it. */
const asyncBuffer = (source: ByteSource) => ({
  byteLength: source.size,
  slice(start: number, end = source.size): Promise<ArrayBuffer> {
    const bytes = readSlice(source, start, end);
    // hyparquet fetches ahead, and forgets what it fetched when something else fails first.
    bytes.catch(() => {});
    return bytes;
  },
});

async function readSlice(source: ByteSource, start: number, end: number): Promise<ArrayBuffer> {
  if (!(start >= 0 && start <= end && end <= source.size))
    throw new RangeError(`bytes ${start} to ${end} of ${source.size}`);
  return (await source.read(start, end - start)).buffer as ArrayBuffer;
}

/** First row and row after the last of each row group; no column may have fewer values than rows. */
function rowGroups(groups: RowGroup[], path: string) {
  let start = 0;
  return groups.map(({ num_rows, columns }) => {
    const rows = Number(num_rows);
    const short = columns.some(({ meta_data }) => meta_data && meta_data.num_values < num_rows);
    if (rows < 0 || short || !Number.isSafeInteger(start + rows))
      throw dataError('a row group has an impossible size', { where: path, got: `${rows} rows` });
    const group = { start, end: start + rows };
    start = group.end;
    return group;
  });
}

async function readable<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw dataError('not a readable parquet file', {
      where: path,
      got: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}
