import type { GradientModel } from '../../../autodiff/gradients.js';
import {
  type Batch,
  batches,
  concat,
  type Dataset,
  normal,
  shuffled,
  uniformFor,
} from '../../../data/index.js';
import { dataError, modelError } from '../../../errors.js';
import { remembered } from '../../../evaluate/forgetting/remembered.js';
import type { TaskData } from '../../method.js';
import type { Pair, SideBatch } from './alternation.js';
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
  const values = new Float32Array(indices.length * width);
  for (let at = 0; at < indices.length; at += size) {
    const some = indices.slice(at, at + size);
    const batch = await oneBatch(dataset, some, extractor);
    const { data, dims } = await extractor.predict(batch.feeds);
    if (
      batch.size !== some.length ||
      dims[0] !== some.length ||
      data.length !== some.length * width
    )
      throw modelError('The model does not take examples in batches of any size.', {
        where: `value "${extractor.output}"`,
        expected: `[${some.length}, ${width}] for ${some.length} examples`,
        got: `[${dims.join(', ')}] for ${batch.size}`,
        hint: 'Export it with a batch axis that is free.',
      });
    values.set(Float32Array.from(data as Float32Array), at * width);
    progress(at + some.length, indices.length);
  }
  const odd = values.findIndex((value) => !Number.isFinite(value));
  if (odd >= 0)
    throw modelError('A representation is no number.', {
      where: `value "${extractor.output}", example ${Math.floor(odd / width)}`,
      got: `${values[odd]}`,
    });
  return { dataset, indices, kept: retain.indices.length, representations: { values, width } };
}

async function oneBatch(
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
