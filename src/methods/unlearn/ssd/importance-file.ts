// Importances on disk, so that those of the full training set are computed once and the data need not
// be kept. A safetensors file with one tensor per parameter, of its name and shape: the sum over the
// batches, not the mean, so that files of different parts of the data add up. What the sums are of is in
// the metadata. They are derived from the data and as sensitive as it.

import { z } from 'zod';
import type { Floats } from '../../../autodiff/optimizer.js';
import { dataError } from '../../../errors.js';
import {
  byName,
  elementsOf,
  type FloatTensor,
  openSafetensors,
  type TensorStore,
  writeSafetensors,
} from '../safetensors.js';
import type { ImportancePair } from './dampen.js';

const FORMAT = 'resect.importance/1';

const count = z
  .string()
  .regex(/^[1-9]\d{0,15}$/, 'not a whole number of 1 or more')
  .transform(Number)
  .refine(Number.isSafeInteger, 'too large');
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'not a SHA-256 in hex');

/** The metadata of a file, all strings, to what they mean. */
const fileMetadata = z
  .object({
    format: z.literal(FORMAT),
    kind: z.enum(['fisher-batch', 'lfssd-abs']),
    loss: z.string().min(1),
    n_batches: count,
    n_samples: count,
    batch_size: count,
    last_batch: count,
    order: z.string().min(1),
    model_sha256: sha256,
    data_sha256: z.string().optional(),
    data_note: z.string().optional(),
    params: z.string(),
  })
  .refine((m) => m.last_batch <= m.batch_size, 'last_batch is above batch_size')
  .refine(
    (m) => m.n_samples >= m.n_batches && m.n_samples <= m.n_batches * m.batch_size,
    'n_samples does not fit n_batches and batch_size',
  );

/** What sums of importances are of. */
export interface ImportanceMetadata {
  /** Squares of the gradient of the mean loss of a batch (SSD), or its absolute values (LFSSD). */
  kind: 'fisher-batch' | 'lfssd-abs';
  /** `ce-mean-logits`, `sqnorm-logits`. */
  loss: string;
  /** Batches summed over: importance = sum / batches. A short one counts as one. */
  batches: number;
  samples: number;
  batchSize: number;
  /** Samples in the last batch. */
  lastBatch: number;
  /** `as-given`, `class-sorted`, `shuffled:SEED`; `mixed` after a merge of two. */
  order: string;
  /** See `parametersHash`. */
  modelSha256: string;
  /** Of the data, for audits. */
  dataSha256?: string;
  dataNote?: string;
}

/** Importances of parameters, summed over batches; in memory or in a file. */
export interface ImportanceStore {
  readonly metadata: ImportanceMetadata;
  /** Sorted by name. */
  readonly parameters: readonly FloatTensor[];
  /** The sums of one of them, row-major: not to be written to. */
  sums(name: string): Promise<Floats>;
}

/** Importances that were just computed. */
export function importancesOf(
  metadata: ImportanceMetadata,
  sums: ReadonlyMap<string, { shape: readonly number[]; values: Floats }>,
): ImportanceStore {
  const parameters = [...sums].map(([name, { shape, values }]): FloatTensor => {
    if (elementsOf(shape) !== values.length)
      throw new Error(`"${name}": ${values.length} values for [${shape.join(', ')}]`);
    return { name, shape, dtype: values instanceof Float32Array ? 'F32' : 'F64' };
  });
  return {
    metadata,
    parameters: parameters.sort(byName),
    sums: async (name) => {
      const sum = sums.get(name);
      if (!sum) throw new Error(`no importances of "${name}"`);
      return sum.values;
    },
  };
}

/**
 * Writes importances, whole or not at all.
 * @throws ioError when the file exists and `force` is not set, or cannot be written
 */
export async function writeImportances(
  path: string,
  { metadata: m, parameters, sums }: ImportanceStore,
  force: boolean,
): Promise<void> {
  const metadata: z.input<typeof fileMetadata> = {
    format: FORMAT,
    kind: m.kind,
    loss: m.loss,
    n_batches: `${m.batches}`,
    n_samples: `${m.samples}`,
    batch_size: `${m.batchSize}`,
    last_batch: `${m.lastBatch}`,
    order: m.order,
    model_sha256: m.modelSha256,
    ...(m.dataSha256 !== undefined && { data_sha256: m.dataSha256 }),
    ...(m.dataNote !== undefined && { data_note: m.dataNote }),
    params: JSON.stringify(parameters.map(({ name }) => name)),
  };
  await writeSafetensors(path, { metadata, tensors: parameters, read: sums }, force);
}

/**
 * Opens a file of importances. Values are read, and checked, when asked for.
 * @throws dataError when it is damaged, incomplete or of another kind, and, from `sums`, for negative
 *   values; ioError when it cannot be read
 */
export async function openImportances(path: string): Promise<ImportanceStore> {
  const store = await openSafetensors(path);
  const metadata = parseMetadata(store, path);
  return {
    metadata,
    parameters: store.tensors,
    async sums(name) {
      const values = await store.read(name);
      const negative = values.findIndex((value) => value < 0);
      if (negative >= 0)
        throw dataError('an importance is negative', {
          where: `${path}: tensor "${name}", element ${negative}`,
          expected: 'sums of squares or of absolute values',
          got: `${values[negative]}`,
          hint: 'The file is damaged: compute and save it again.',
        });
      return values;
    },
  };
}

function parseMetadata({ metadata, tensors }: TensorStore, path: string): ImportanceMetadata {
  const parsed = fileMetadata.safeParse(metadata);
  if (!parsed.success) {
    const [{ path: key, message }] = parsed.error.issues;
    throw dataError('not a file of importances that can be read', {
      where: [path, ...key].join(': '),
      expected: `metadata of the format ${FORMAT}`,
      got: message,
      hint: 'Compute and save the importances again, with this version.',
    });
  }
  const m = parsed.data;
  const names = JSON.stringify(tensors.map(({ name }) => name));
  if (sortedList(m.params) !== names)
    throw dataError('the file of importances does not have the parameters that it lists', {
      where: `${path}: params`,
      hint: 'The file is incomplete: compute and save it again.',
    });
  return {
    kind: m.kind,
    loss: m.loss,
    batches: m.n_batches,
    samples: m.n_samples,
    batchSize: m.batch_size,
    lastBatch: m.last_batch,
    order: m.order,
    modelSha256: m.model_sha256,
    ...(m.data_sha256 !== undefined && { dataSha256: m.data_sha256 }),
    ...(m.data_note !== undefined && { dataNote: m.data_note }),
  };
}

/** A JSON list in one form; undefined for what is none. */
function sortedList(json: string): string | undefined {
  try {
    const list: unknown = JSON.parse(json);
    return Array.isArray(list) ? JSON.stringify(list.sort()) : undefined;
  } catch {
    return undefined;
  }
}

const COMPARED = [
  ['kind', 'kind of importance'],
  ['loss', 'loss'],
  ['batchSize', 'batch size'],
  ['modelSha256', 'hash of the model'],
] as const;

/**
 * Refuses two sets of importances that cannot be compared, or added: they are of another kind, loss or
 * batch size, of another model, or of other parameters.
 * @param where names the two in the error
 * @throws dataError
 */
export function checkComparable(a: ImportanceStore, b: ImportanceStore, where: string): void {
  for (const [key, what] of COMPARED) {
    const [expected, got] = [`${a.metadata[key]}`, `${b.metadata[key]}`];
    if (expected !== got)
      throw dataError(`the importances differ in the ${what}`, {
        where,
        expected,
        got,
        hint: 'Compute both with the same model and the same settings.',
      });
  }
  const [expected, got] = [a, b].map(({ parameters }) => parameters.map(describe));
  const at = expected.findIndex((parameter, i) => parameter !== got[i]);
  if (at >= 0 || got.length !== expected.length)
    throw dataError('the importances are not of the same parameters', {
      where,
      expected: expected[at] ?? `${expected.length} parameters`,
      got: (at < 0 ? undefined : got[at]) ?? `${got.length} parameters`,
      hint: 'Compute both with the same --include and --exclude.',
    });
}

const describe = ({ name, shape }: FloatTensor): string => `"${name}" [${shape.join(', ')}]`;

/**
 * The importances of two parts of the data as those of both; nothing is read before it is asked for.
 * Sums are added in float64, and are float32 where both are.
 * @param where names the two in errors
 * @throws dataError as `checkComparable`
 */
export function mergeImportances(
  a: ImportanceStore,
  b: ImportanceStore,
  where: string,
): ImportanceStore {
  checkComparable(a, b, where);
  const both = (x: string | undefined, y: string | undefined) =>
    x === undefined || y === undefined || x === y ? (x ?? y) : `${x}, ${y}`;
  const { metadata: m } = a;
  const { metadata: n } = b;
  const parameters = a.parameters.map((parameter, i): FloatTensor => {
    const wide = parameter.dtype === 'F64' || b.parameters[i].dtype === 'F64';
    return { ...parameter, dtype: wide ? 'F64' : 'F32' };
  });
  const wide = new Set(parameters.flatMap(({ name, dtype }) => (dtype === 'F64' ? name : [])));
  return {
    metadata: {
      ...m,
      batches: m.batches + n.batches,
      samples: m.samples + n.samples,
      lastBatch: n.lastBatch,
      order: m.order === n.order ? m.order : 'mixed',
      dataSha256: both(m.dataSha256, n.dataSha256),
      dataNote: both(m.dataNote, n.dataNote),
    },
    parameters,
    async sums(name) {
      const x = await a.sums(name);
      const y = await b.sums(name);
      const sum = wide.has(name) ? new Float64Array(x) : new Float32Array(x);
      for (let i = 0; i < sum.length; i++) sum[i] += y[i];
      return sum;
    },
  };
}

/** Importances of one parameter: means over the batches. */
export async function meanImportances(store: ImportanceStore, name: string): Promise<Floats> {
  const sums = await store.sums(name);
  const means = sums.slice();
  for (let i = 0; i < means.length; i++) means[i] /= store.metadata.batches;
  return means;
}

/**
 * The importances of every parameter for the forget set and the full set, in order of name.
 * @throws dataError as `checkComparable`
 */
export async function* pairImportances(
  forget: ImportanceStore,
  full: ImportanceStore,
): AsyncGenerator<ImportancePair & { name: string }> {
  checkComparable(full, forget, 'importances of the full set and of the forget set');
  for (const { name } of full.parameters)
    yield {
      name,
      forget: await meanImportances(forget, name),
      full: await meanImportances(full, name),
    };
}
