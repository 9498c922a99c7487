import { dataError } from '../errors.js';
import { readText } from './bytes.js';
import type { ColumnFile } from './columns.js';
import { recordColumns } from './records.js';

/** JSON lines: one object per line, blank lines skipped. The fields of the first record name the columns. */
export async function openJsonl(path: string): Promise<ColumnFile> {
  const text = await readText(path);
  const records: { line: number; fields: object }[] = [];
  for (const [i, line] of text.split('\n').entries())
    if (line.trim() !== '')
      records.push({ line: i + 1, fields: parseLine(line, `${path}:${i + 1}`) });
  if (records.length === 0) throw dataError('the data has no examples', { where: path });
  return recordColumns({
    names: Object.keys(records[0]?.fields ?? {}),
    length: records.length,
    files: [path],
    value: async (name, i) => Object.getOwnPropertyDescriptor(records[i].fields, name)?.value,
    where: (i) => `${path}:${records[i].line}`,
  });
}

function parseLine(line: string, where: string): object {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw dataError('the line is not JSON', { where, got: (cause as Error).message, cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw dataError('the line is not a JSON object', { where, expected: '{"text": ...}' });
  return value;
}
