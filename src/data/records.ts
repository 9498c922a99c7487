import { dataError } from '../errors.js';
import { type Column, type ColumnFile, notScalar } from './columns.js';
import type { TensorData } from './types.js';

/** Deeper nests are no tensors, and would exhaust the stack. */
const MAX_RANK = 32;

/** Reads one field of one record; `undefined` when the record has none. */
export interface RecordReader {
  readonly names: string[];
  readonly length: number;
  readonly files: string[];
  value(name: string, i: number): Promise<unknown>;
  /** Where record i is, for messages. */
  where(i: number): string;
}

/** Records (of JSON lines or parquet) as columns: fields hold numbers, nested lists of them, or text. */
export function recordColumns(records: RecordReader): ColumnFile {
  const { names, length, files, value, where } = records;
  const column = (name: string): Column => {
    const item = async (i: number) => toTensor(await value(name, i), `${where(i)}, field ${name}`);
    return {
      where: `${files[0]}, field ${name}`,
      length,
      item,
      async numbers() {
        const out = new Float64Array(length);
        for (let i = 0; i < length; i++) {
          const { data, dims } = await item(i);
          if (data.length !== 1) throw notScalar(`${where(i)}, field ${name}`, dims);
          out[i] = Number(data[0]);
        }
        return out;
      },
    };
  };
  const texts = async (name: string) => {
    const out: string[] = [];
    for (let i = 0; i < length; i++) {
      const text = await value(name, i);
      if (typeof text !== 'string')
        throw dataError('text was expected', {
          where: `${where(i)}, field ${name}`,
          got: kindOf(text),
        });
      out.push(text);
    }
    return out;
  };
  return { names, files, column: async (name) => column(name), texts };
}

/**
 * A number, boolean or bigint, or a rectangular nest of lists of them, as a tensor: booleans as `bool`,
 * bigints as `int64`, numbers as `float64`.
 */
export function toTensor(value: unknown, where: string): TensorData {
  const dims: number[] = [];
  for (let inner = value; isList(inner); inner = inner[0]) dims.push(inner.length);
  if (dims.length > MAX_RANK) throw dataError('the lists are nested too deeply', { where });
  const flat: unknown[] = [];
  flatten(value, dims, 0, flat, where);
  if (flat.length > 0 && flat.every((v) => typeof v === 'boolean'))
    return { dtype: 'bool', dims, data: Uint8Array.from(flat, Number) };
  if (flat.length > 0 && flat.every((v) => typeof v === 'bigint'))
    return { dtype: 'int64', dims, data: BigInt64Array.from(flat) };
  return { dtype: 'float64', dims, data: Float64Array.from(flat, Number) };
}

function flatten(
  value: unknown,
  dims: number[],
  depth: number,
  flat: unknown[],
  where: string,
): void {
  if (!isList(value)) {
    if (depth < dims.length) throw ragged(where, dims);
    if (typeof value !== 'number' && typeof value !== 'boolean' && typeof value !== 'bigint')
      throw dataError('numbers were expected', { where, got: kindOf(value) });
    flat.push(value);
    return;
  }
  if (value.length !== dims[depth]) throw ragged(where, dims);
  for (let i = 0; i < value.length; i++) flatten(value[i], dims, depth + 1, flat, where);
}

const ragged = (where: string, dims: number[]) =>
  dataError('the lists do not have equal lengths', {
    where,
    expected: `a nest of shape [${dims.join(', ')}]`,
  });

const isList = (value: unknown): value is ArrayLike<unknown> =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));

const kindOf = (value: unknown) =>
  value === undefined || value === null ? 'nothing' : typeof value;
