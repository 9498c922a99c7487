import { dataError, usageError } from '../errors.js';
import {
  auxiliaryInput,
  auxiliaryKind,
  checkSize,
  constantInput,
  missingInput,
  type RunSizes,
  resolveDim,
} from './auxiliary.js';
import { filled, isInteger, itemSize, product, showDims } from './dtypes.js';
import type { Batch, Dataset, Example, InputSpec, TensorData } from './types.js';

/**
 * The examples at `indices`, in that order, as complete feeds for the model.
 * - A frozen batch k gives runs of exactly k rows; the last one repeats its last example.
 * - A model without a batch axis gets one example per run.
 * - Shorter token sequences are padded at their end, to the model's fixed length or the longest in the batch.
 * Throws a data error when examples of one batch differ in shape, or an input would exceed 2^28 elements.
 */
export async function* batches(
  dataset: Dataset,
  indices: readonly number[],
  batchSize: number,
  specs: readonly InputSpec[],
): AsyncGenerator<Batch> {
  if (!(batchSize >= 1))
    throw usageError('the batch size must be 1 or more', { got: `${batchSize}` });
  if (indices.length === 0) return;
  const { frozen, perRun } = batching(await dataset.example(indices[0]), batchSize, specs);
  for (let at = 0; at < indices.length; at += perRun) {
    const some = indices.slice(at, at + perRun);
    const examples = await Promise.all(some.map((i) => dataset.example(i)));
    const rows = examples.slice();
    while (frozen !== undefined && rows.length < frozen) rows.push(examples[examples.length - 1]);
    const valid = tokensOf(examples);
    yield {
      feeds: feeds(dataset, rows, specs),
      labels: examples.map(({ label }) => label),
      size: examples.length,
      ...(valid && { tokens: valid }),
    };
  }
}

/** How many examples a run takes, and the batch the model insists on. */
function batching({ inputs }: Example, batchSize: number, specs: readonly InputSpec[]) {
  let frozen: number | undefined;
  let whole = false;
  for (const spec of specs) {
    const item = inputs[spec.name];
    if (!item) continue;
    if (item.dims.length === spec.dims.length) {
      whole = true;
      continue;
    }
    const [batch] = spec.dims;
    if (typeof batch !== 'number') continue;
    if (batch < 1 || (frozen !== undefined && batch !== frozen))
      throw dataError('the model cannot be fed in batches', {
        where: `input ${spec.name} ${showDims(spec.dims)}`,
        expected: `a batch of ${frozen ?? '1 or more'}`,
        got: `${batch}`,
      });
    // An empty item still takes a row.
    checkSize(spec, [batch, Math.max(1, product(item.dims))]);
    frozen = batch;
  }
  return { frozen, perRun: whole ? 1 : (frozen ?? batchSize) };
}

function tokensOf(examples: Example[]): number[] | undefined {
  const tokens = examples.map((example) => example.tokens);
  return tokens.every((count) => count !== undefined) ? tokens : undefined;
}

function feeds(dataset: Dataset, rows: Example[], specs: readonly InputSpec[]) {
  const given: Record<string, TensorData> = {};
  const symbols = new Map<string, number>();
  let sequence: number | undefined;
  for (const spec of specs) {
    if (!rows[0].inputs[spec.name]) continue;
    const input = stack(rows, spec, dataset.padding?.[spec.name] ?? 0);
    given[spec.name] = input;
    for (const [axis, dim] of spec.dims.entries())
      if (typeof dim === 'string') symbols.set(dim, input.dims[axis]);
    if (isInteger(spec.dtype)) sequence ??= input.dims.at(-1);
  }
  const sizes = { batch: rows.length, symbols, sequence, valid: tokensOf(rows) };
  return Object.fromEntries(
    specs.map((spec) => [
      spec.name,
      given[spec.name] ?? constant(dataset, spec, sizes) ?? auxiliary(spec, sizes),
    ]),
  );
}

/** Rows as one tensor, with the batch axis unless the items already have the rank of the input. */
function stack(rows: Example[], spec: InputSpec, padding: number): TensorData {
  const items = rows.map(({ inputs }) => inputs[spec.name]);
  const whole = items[0].dims.length === spec.dims.length;
  const dims = commonDims(rows, items, whole ? spec.dims : spec.dims.slice(1), spec);
  const { dtype } = items[0];
  const size = product(dims);
  checkSize(spec, [items.length, ...dims]);
  const data = filled(dtype, size * items.length, padding);
  const bytes = new Uint8Array(data.buffer);
  for (const [row, { data: item }] of items.entries())
    bytes.set(
      new Uint8Array(item.buffer, item.byteOffset, item.byteLength),
      row * size * itemSize(dtype),
    );
  return { dtype, dims: whole ? dims : [items.length, ...dims], data };
}

/** The items' shape; of token sequences of different lengths the longest, or the length the model fixes. */
function commonDims(
  rows: Example[],
  items: TensorData[],
  wanted: (number | string)[],
  spec: InputSpec,
): number[] {
  const dims = items[0].dims.slice();
  const perToken = rows.every(
    ({ tokens }, i) => tokens !== undefined && items[i].dims[0] === tokens,
  );
  if (perToken) {
    const longest = Math.max(...items.map((item) => item.dims[0]));
    dims[0] = typeof wanted[0] === 'number' ? wanted[0] : longest;
    if (longest > dims[0])
      throw dataError('the sequence is longer than the model takes', {
        where: `input ${spec.name}`,
        expected: `at most ${dims[0]} tokens`,
        got: `${longest}`,
      });
  }
  const odd = items.find(
    (item) =>
      item.dims.length !== dims.length ||
      item.dims.some((dim, axis) => dim !== dims[axis] && !(perToken && axis === 0)),
  );
  if (odd)
    throw dataError('the examples of one batch differ in shape', {
      where: `input ${spec.name}`,
      expected: showDims(dims),
      got: showDims(odd.dims),
      hint: 'Set `resize: [height, width]` in a data card if these are images, or use a batch size of 1.',
    });
  return dims;
}

function constant(dataset: Dataset, spec: InputSpec, sizes: RunSizes): TensorData | undefined {
  const value = dataset.constants?.[spec.name];
  if (value === undefined) return undefined;
  if (typeof value === 'number') {
    const dims = spec.dims.map((_, axis) => resolveDim(spec, axis, undefined, sizes));
    return constantInput(spec, dims, value);
  }
  if (value.dims.length === spec.dims.length) return value;
  const row: Example = { inputs: { [spec.name]: value } };
  return stack(new Array<Example>(sizes.batch).fill(row), spec, 0);
}

function auxiliary(spec: InputSpec, sizes: RunSizes): TensorData {
  const kind = auxiliaryKind(spec);
  if (!kind) throw missingInput(spec);
  return auxiliaryInput(spec, kind, sizes);
}
