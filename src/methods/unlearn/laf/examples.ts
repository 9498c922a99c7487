import type { GradientModel } from '../../../autodiff/gradients.js';
import {
  type Batch,
  batches,
  concat,
  type Dataset,
  type Example,
  type InputSpec,
  normal,
  shuffled,
  uniformFor,
} from '../../../data/index.js';
import { dataError, modelError } from '../../../errors.js';
import { remembered } from '../../../evaluate/forgetting/remembered.js';
import type { TaskData } from '../../method.js';
import type { Pair, SideBatch } from './alternation.js';
import { shortest } from './losses.js';
import { drawRows, pick, type Rows } from './rows.js';

/** The kept examples and then those to forget, with their representations in the original. */
export interface Examples {
  dataset: Dataset;
  /** Indices of `dataset`: `kept` of examples to keep, then those to forget. */
  indices: readonly number[];
  kept: number;
  representations: Rows;
}

/**
 * Computes the representations of all examples with the present values.
 * @param extractor whose output are representations, of `width` numbers
 * @param size examples at once
 * @throws {ResectError} exit 5 where the model does not take examples in batches of any size, or puts out
 *   what is no number
 */
export async function embed(
  extractor: GradientModel,
  retain: TaskData,
  forget: TaskData,
  { width, size }: { width: number; size: number },
  progress: (done: number, total: number) => void,
): Promise<Examples> {
  const dataset = remembered(concat(retain.dataset, forget.dataset));
  const indices = [...retain.indices, ...forget.indices.map((i) => i + retain.dataset.length)];
  refuseFixedBatch(await dataset.example(indices[0]), extractor.inputs);
  const values = new Float32Array(indices.length * width);
  for (let at = 0; at < indices.length; at += size) {
    const some = indices.slice(at, at + size);
    const rows = await representationsOf(extractor, dataset, some);
    if (rows.length !== some.length * width)
      throw modelError('The model does not put out a representation for each example.', {
        where: `value "${extractor.output}"`,
        expected: `${some.length} x ${width} numbers`,
        got: `${rows.length}`,
        hint: 'Choose another --split, or export the model with a batch axis that is free.',
      });
    values.set(rows, at * width);
    progress(Math.min(at + size, indices.length), indices.length);
  }
  const odd = values.findIndex((value) => !Number.isFinite(value));
  if (odd >= 0)
    throw modelError('A representation is no number.', {
      where: `value "${extractor.output}", example ${Math.floor(odd / width)}`,
      got: `${values[odd]}`,
    });
  return { dataset, indices, kept: retain.indices.length, representations: { values, width } };
}

/** Kept examples and those to forget run together in any number: the batch must be free. */
function refuseFixedBatch({ inputs }: Example, specs: readonly InputSpec[]): void {
  for (const { name, dims } of specs) {
    const item = inputs[name];
    if (!item || (item.dims.length < dims.length && typeof dims[0] === 'string')) continue;
    throw modelError('The model does not take examples in batches of any size.', {
      where: `input "${name}"`,
      expected: 'a batch axis that is free',
      got: `[${dims.map((dim) => (typeof dim === 'number' ? dim : dim || '?')).join(', ')}]`,
      hint: 'Export it with a batch axis that is free.',
    });
  }
}

async function representationsOf(
  extractor: GradientModel,
  dataset: Dataset,
  indices: readonly number[],
): Promise<Float32Array> {
  const { feeds } = await oneBatch(dataset, indices, extractor);
  return Float32Array.from((await extractor.predict(feeds)).data as Float32Array);
}

/**
 * How far representations have turned from those of the original: the mean of 1 - cos. Those without a
 * direction do not count; NaN where one is no number any more.
 * @param at positions of the examples to look at
 */
export async function shiftOf(
  extractor: GradientModel,
  { dataset, indices, representations }: Examples,
  at: readonly number[],
  size: number,
): Promise<number> {
  const { width } = representations;
  let [sum, count] = [0, 0];
  for (let k = 0; k < at.length; k += size) {
    const some = at.slice(k, k + size);
    const now = await representationsOf(
      extractor,
      dataset,
      some.map((i) => indices[i]),
    );
    const before = pick(representations, some).values;
    for (let row = 0; row < now.length; row += width) {
      let [ab, aa, bb] = [0, 0, 0];
      for (let i = row; i < row + width; i++) {
        ab += now[i] * before[i];
        aa += now[i] ** 2;
        bb += before[i] ** 2;
      }
      if (Math.min(aa, bb) <= shortest ** 2) continue;
      sum += 1 - ab / Math.sqrt(aa * bb);
      count++;
    }
  }
  return count > 0 ? sum / count : 0;
}

/** These examples as one batch. */
export async function oneBatch(
  dataset: Dataset,
  indices: readonly number[],
  model: GradientModel,
): Promise<Batch> {
  for await (const batch of batches(dataset, indices, indices.length, model.inputs)) return batch;
  throw dataError('There are no examples.', { where: dataset.path });
}

/** Positions 0 to count - 1 from `from` on, in an order drawn. */
const order = (from: number, count: number, random: () => number): number[] =>
  shuffled(
    Array.from({ length: count }, (_, i) => from + i),
    random,
  );

/** Pairs of steps in an epoch: as many as the smaller set has batches. */
export const pairsPerEpoch = (
  { indices, kept }: Pick<Examples, 'indices' | 'kept'>,
  size: number,
) => Math.ceil(Math.min(kept, indices.length - kept) / size);

/** The pairs of an epoch; seed and number of the epoch alone decide of them. */
export async function* pairs(
  model: GradientModel,
  { dataset, indices, kept, representations }: Examples,
  { size, latent, seed, epoch }: { size: number; latent: number; seed: number; epoch: number },
): AsyncGenerator<Pair> {
  const random = uniformFor(seed, `laf epoch ${epoch}`);
  const forgottenOrder = order(kept, indices.length - kept, random);
  const keptOrder = order(0, kept, random);
  const gauss = normal(random);
  for (let k = 0; k < pairsPerEpoch({ indices, kept }, size); k++) {
    const side = async (all: readonly number[]): Promise<SideBatch> => {
      const at = all.slice(k * size, (k + 1) * size);
      const own = at.map((i) => indices[i]);
      const { feeds } = await oneBatch(dataset, own, model);
      return {
        feeds,
        teacher: pick(representations, at),
        noise: drawRows(at.length, latent, gauss),
      };
    };
    yield { kept: await side(keptOrder), forgotten: await side(forgottenOrder) };
  }
}
