import type { GradientModel } from '../../../autodiff/gradients.js';
import type { Floats } from '../../../autodiff/optimizer.js';
import {
  type Losses,
  refuseDivergence,
  runEpochs,
  showLosses,
} from '../../../autodiff/training-loop.js';
import { modelError, usageError } from '../../../errors.js';
import type { Context } from '../../method.js';
import { Alternation } from './alternation.js';
import { type RunRequest, type RunState, readState, writeState } from './checkpoint.js';
import { type Examples, pairs, pairsPerEpoch } from './examples.js';
import type { LafSettings } from './settings.js';
import { trainVae } from './train-vae.js';
import { type VaeSizes, vaeSizes } from './vae.js';

/** A run, as it is asked for. */
export interface RunOptions {
  given: LafSettings;
  /** The value with the representations. */
  split: string;
  /** What a checkpoint must have been asked for. */
  request: RunRequest;
  /** Accuracy on kept examples, with the present values; absent where nobody asks for it. */
  retainAccuracy?: () => Promise<number>;
}

/** What became of a run. */
export interface RunResult {
  /** Means of the epochs that were made. */
  epochs: readonly Losses[];
  vaeLosses: RunState['vaeLosses'];
  notes: string[];
}

/**
 * Trains the autoencoders, then the extractor in pairs of steps, epoch by epoch, and keeps the state on
 * disk where a checkpoint is asked for. An epoch that harms what is kept is taken back, and ends the run.
 * @param extractor by the parameters to train, which are changed in place
 * @throws {ResectError} exit 5 when it diverges, or when the first epoch does harm already; exit 6 for a
 *   checkpoint of another run, exit 2 for one that has gone further
 */
export async function runLaf(
  extractor: GradientModel,
  examples: Examples,
  { given, split, request, retainAccuracy }: RunOptions,
  context: Context,
): Promise<RunResult> {
  const { batchSize, latent, temperature, checkpoint, epochs: wanted } = given;
  const perEpoch = pairsPerEpoch(examples, batchSize);
  const rates = { unlearning: given.unlearnRate, alignment: given.alignRate };
  const notes = [given.note];
  const sizes = vaeSizes(examples.representations.width, latent);
  const earlier =
    given.resume && checkpoint !== undefined
      ? await readState(checkpoint, request, extractor.values, sizes)
      : undefined;
  if (earlier) {
    if (earlier.epochs.length > wanted)
      throw usageError('The checkpoint has more epochs than are asked for.', {
        where: checkpoint,
        expected: `at most ${wanted}`,
        got: `${earlier.epochs.length}`,
        hint: 'Raise --epochs, or leave out --resume to begin anew.',
      });
    for (const [name, values] of earlier.values) extractor.values.get(name)?.set(values);
    notes.push(`resumed after epoch ${earlier.epochs.length}`);
  }
  const { vaes, vaeLosses } = earlier ?? (await trainVaes(examples, sizes, given, context));
  notes.push(
    `autoencoders: loss ${change(vaeLosses.all)} on all examples, ${change(vaeLosses.forgotten)} on the forget set`,
  );

  const alternation = new Alternation(
    extractor,
    { split, sizes, vaes, rates, temperature, threads: context.threads },
    earlier?.optimizers,
  );
  const epochs = [...(earlier?.epochs ?? [])];
  let lastGood = copyOf(extractor.values);
  try {
    await runEpochs({
      epochs: wanted,
      made: epochs.length,
      batches: (epoch) =>
        pairs(extractor, examples, { size: batchSize, latent, seed: context.seed, epoch }),
      step: async (pair) => ({ ...(await alternation.step(pair)) }),
      afterStep: (step, losses) => {
        const at = (earlier?.epochs.length ?? 0) * perEpoch + step;
        refuseDivergence(
          losses,
          `at step ${at}`,
          'Choose smaller --unlearn-rate and --align-rate.',
        );
        const { unlearning, alignment } = losses;
        const shown = showLosses({ unlearning, alignment });
        context.progress('unlearn', at, wanted * perEpoch, shown);
        return false;
      },
      async afterEpoch(epoch, means) {
        const harm = await harmOf(means, given, retainAccuracy);
        if (harm !== undefined) {
          if (epochs.length === 0) throw harmful(harm);
          for (const [name, values] of lastGood) extractor.values.get(name)?.set(values);
          notes.push(`stopped after epoch ${epoch + 1} of ${wanted}, which is taken back: ${harm}`);
          return true;
        }
        epochs.push(means);
        lastGood = copyOf(extractor.values);
        if (checkpoint !== undefined)
          await writeState(checkpoint, {
            request,
            epochs,
            vaes,
            vaeLosses,
            values: extractor.values,
            optimizers: {
              unlearning: alternation.optimizers.unlearning.state,
              alignment: alternation.optimizers.alignment.state,
            },
          });
        return false;
      },
    });
  } finally {
    await alternation.release();
  }
  const of = (name: keyof Losses) => epochs.map((means) => means[name]);
  notes.push(
    `losses by epoch: unlearning ${change(of('unlearning'))}, alignment ${change(of('alignment'))}`,
    `representations turned by ${show(epochs[epochs.length - 1].keptShift)} (kept) and ${show(epochs[epochs.length - 1].forgottenShift)} (to forget), mean 1 - cos`,
  );
  return { epochs, vaeLosses, notes };
}

async function trainVaes(
  { representations, kept }: Examples,
  sizes: VaeSizes,
  { vaeEpochs, vaeRate, batchSize }: LafSettings,
  { seed, progress }: Context,
): Promise<Pick<RunState, 'vaes' | 'vaeLosses'>> {
  const { values, width } = representations;
  const one = (name: string, rows: Float32Array) =>
    trainVae({ values: rows, width }, sizes, {
      epochs: vaeEpochs,
      rate: vaeRate,
      batchSize,
      seed,
      name,
      progress: (done, total, losses) =>
        progress(`autoencoder of ${name}`, done, total, showLosses(losses)),
    });
  // As the authors do: that of the data that is kept sees all.
  const all = await one('all examples', values);
  const forgotten = await one('the forget set', values.subarray(kept * width));
  return {
    vaes: { all: all.weights, forgotten: forgotten.weights },
    vaeLosses: { all: all.losses, forgotten: forgotten.losses },
  };
}

/** What an epoch did to what is kept, where that is more than may be. */
async function harmOf(
  means: Losses,
  { maxShift, minRetain }: LafSettings,
  retainAccuracy: RunOptions['retainAccuracy'],
): Promise<string | undefined> {
  if (means.keptShift > maxShift)
    return `kept representations have turned by ${show(means.keptShift)} (--max-shift ${maxShift})`;
  if (minRetain === undefined || !retainAccuracy) return undefined;
  const accuracy = await retainAccuracy();
  return accuracy >= minRetain
    ? undefined
    : `accuracy on the retain set fell to ${(100 * accuracy).toFixed(1)} % (--min-retain ${minRetain})`;
}

const harmful = (harm: string) =>
  modelError('The first epoch does harm already: there is nothing to go back to.', {
    got: harm,
    hint: 'Choose smaller --unlearn-rate and --align-rate, or allow more.',
  });

const copyOf = (values: ReadonlyMap<string, Floats>): Map<string, Floats> =>
  new Map([...values].map(([name, own]) => [name, own.slice()]));

const change = (losses: readonly number[]): string =>
  `${show(losses[0])} -> ${show(losses[losses.length - 1])}`;

const show = (value: number): string => String(Number(value.toPrecision(3)));
