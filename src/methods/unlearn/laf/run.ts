import type { GradientModel } from '../../../autodiff/gradients.js';
import type { Floats } from '../../../autodiff/optimizer.js';
import {
  type Losses,
  refuseDivergence,
  runEpochs,
  showLosses,
} from '../../../autodiff/training-loop.js';
import { sampleIndices } from '../../../data/index.js';
import { modelError, usageError } from '../../../errors.js';
import type { Context, TrainingStage } from '../../method.js';
import { show } from '../show.js';
import { Alternation } from './alternation.js';
import { type RunRequest, type RunState, writeState } from './checkpoint.js';
import { type Examples, pairs, pairsPerEpoch, shiftOf } from './examples.js';
import type { LafSettings } from './settings.js';
import { trainVae } from './train-vae.js';
import { type VaeSizes, vaeSizes } from './vae.js';

/** A run, as it is asked for. */
export interface RunOptions {
  given: LafSettings;
  /** The value with the representations. */
  split: string;
  /** What it is kept under in a checkpoint. */
  request: RunRequest;
  /** The state of an earlier run that this one goes on from. */
  earlier?: RunState;
  /** Accuracy on kept examples, with the present values; absent where nobody asks for it. */
  retainAccuracy?: () => Promise<number>;
}

interface Sides<T> {
  all: T;
  forgotten: T;
}

/** What became of a run. */
export interface RunResult {
  training: TrainingStage[];
  notes: string[];
}

/**
 * Trains the autoencoders, then the extractor in pairs of steps, epoch by epoch, and keeps the state on
 * disk where a checkpoint is asked for. An epoch that harms what is kept is taken back, and ends the run.
 * @param extractor by the parameters to train, which are changed in place
 * @throws {ResectError} exit 5 when it diverges, or when the first epoch does harm already; exit 2 for a
 *   --min-retain that the model does not have to begin with
 */
export async function runLaf(
  extractor: GradientModel,
  examples: Examples,
  { given, split, request, earlier, retainAccuracy }: RunOptions,
  context: Context,
): Promise<RunResult> {
  const sizes = vaeSizes(examples.representations.width, given.latent);
  const notes = [given.note];
  if (earlier) {
    for (const [name, values] of earlier.values) extractor.values.get(name)?.set(values);
    notes.push(`resumed after epoch ${earlier.epochs.length}`);
  } else await refuseTooMuch(given, retainAccuracy);
  const { vaes, vaeLosses, seconds } = {
    seconds: { all: 0, forgotten: 0 },
    ...(earlier ?? (await trainVaes(examples, sizes, given, context))),
  };
  const alternation = new Alternation(
    extractor,
    {
      split,
      sizes,
      vaes,
      rates: { unlearning: given.unlearnRate, alignment: given.alignRate },
      temperature: given.temperature,
      threads: context.threads,
    },
    earlier?.optimizers,
  );
  const start = performance.now();
  const epochs = [...(earlier?.epochs ?? [])];
  try {
    const { checkpoint } = given;
    const keep = async () => {
      if (checkpoint === undefined) return;
      const { unlearning, alignment } = alternation.optimizers;
      await writeState(checkpoint, {
        request,
        epochs,
        vaes,
        vaeLosses,
        values: extractor.values,
        optimizers: { unlearning: unlearning.state, alignment: alignment.state },
      });
    };
    const stopped = await alternate(extractor, examples, alternation, epochs, keep, {
      given,
      retainAccuracy,
      context,
    });
    if (stopped) notes.push(stopped);
  } finally {
    await alternation.release();
  }
  const last = epochs[epochs.length - 1];
  const of = (name: keyof Losses) => epochs.map((means) => means[name]);
  notes.push(
    `autoencoders: loss ${change(vaeLosses.all)} on all examples, ${change(vaeLosses.forgotten)} on the forget set`,
    `losses by epoch: unlearning ${change(of('unlearning'))}, alignment ${change(of('alignment'))}`,
    `representations turned by ${show(last.keptShift)} (kept) and ${show(last.forgottenShift)} (to forget), mean 1 - cos`,
  );
  const ofVae = (name: string, losses: readonly number[], took: number): TrainingStage => ({
    stage: `autoencoder of ${name}`,
    epochs: losses.map((loss) => ({ loss })),
    seconds: took,
  });
  return {
    training: [
      ofVae('all examples', vaeLosses.all, seconds.all),
      ofVae('the forget set', vaeLosses.forgotten, seconds.forgotten),
      { stage: 'unlearning', epochs, seconds: (performance.now() - start) / 1000 },
    ],
    notes,
  };
}

/**
 * Makes the epochs that are still to be made.
 * @param epochs means of those that were made; new ones are added
 * @param keep is called after each that does no harm
 * @returns why it stopped early, if it did
 */
async function alternate(
  extractor: GradientModel,
  examples: Examples,
  alternation: Alternation,
  epochs: Losses[],
  keep: () => Promise<void>,
  {
    given,
    retainAccuracy,
    context,
  }: Pick<RunOptions, 'given' | 'retainAccuracy'> & { context: Context },
): Promise<string | undefined> {
  const { batchSize: size, latent, epochs: wanted } = given;
  const { seed, progress } = context;
  const perEpoch = pairsPerEpoch(examples, size);
  const made = epochs.length;
  const shifts = shiftsOf(extractor, examples, size, seed);
  let lastGood = copyOf(extractor.values);
  let stopped: string | undefined;
  await runEpochs({
    epochs: wanted,
    made,
    batches: (epoch) => pairs(extractor, examples, { size, latent, seed, epoch }),
    step: (pair) => alternation.step(pair),
    afterStep: (step, losses) => {
      const at = made * perEpoch + step;
      refuseDivergence(losses, `at step ${at}`, advice);
      progress('unlearn', at, wanted * perEpoch, showLosses(losses));
      return false;
    },
    async afterEpoch(epoch, losses) {
      // Losses are those before their step; these are of the weights as they would be written.
      const means = { ...losses, ...(await shifts()) };
      refuseDivergence(means, `after epoch ${epoch + 1}`, advice);
      const harm = await harmOf(means, given, retainAccuracy);
      if (harm === undefined) {
        epochs.push(means);
        lastGood = copyOf(extractor.values);
        await keep();
        return false;
      }
      if (epochs.length === 0) throw harmful(harm);
      for (const [name, values] of lastGood) extractor.values.get(name)?.set(values);
      stopped = `stopped after epoch ${epoch + 1} of ${wanted}, which is taken back: ${harm}`;
      return true;
    },
  });
  return stopped;
}

async function trainVaes(
  { representations, kept }: Examples,
  sizes: VaeSizes,
  { vaeEpochs, vaeRate, batchSize }: LafSettings,
  { seed, progress }: Context,
): Promise<Pick<RunState, 'vaes' | 'vaeLosses'> & { seconds: Sides<number> }> {
  const { values, width } = representations;
  const one = async (name: string, rows: Float32Array) => {
    const start = performance.now();
    const trained = await trainVae({ values: rows, width }, sizes, {
      epochs: vaeEpochs,
      rate: vaeRate,
      batchSize,
      seed,
      name,
      progress: (done, total, losses) =>
        progress(`autoencoder of ${name}`, done, total, showLosses(losses)),
    });
    return { ...trained, seconds: (performance.now() - start) / 1000 };
  };
  // As the authors do: that of the data that is kept sees all.
  const all = await one('all examples', values);
  const forgotten = await one('the forget set', values.subarray(kept * width));
  return {
    vaes: { all: all.weights, forgotten: forgotten.weights },
    vaeLosses: { all: all.losses, forgotten: forgotten.losses },
    seconds: { all: all.seconds, forgotten: forgotten.seconds },
  };
}

/** Examples of a side that are looked at, after each epoch, for how far representations have turned. */
const lookedAt = 256;

/** Measures how far representations have turned, of the same examples at each call. */
function shiftsOf(extractor: GradientModel, examples: Examples, size: number, seed: number) {
  const { indices, kept } = examples;
  const own = sampleIndices(kept, lookedAt, seed);
  const others = sampleIndices(indices.length - kept, lookedAt, seed).map((i) => kept + i);
  return async () => ({
    keptShift: await shiftOf(extractor, examples, own, size),
    forgottenShift: await shiftOf(extractor, examples, others, size),
  });
}

/** Refuses to watch for more accuracy than the model has before anything is forgotten. */
async function refuseTooMuch(
  { minRetain }: LafSettings,
  retainAccuracy: RunOptions['retainAccuracy'],
): Promise<void> {
  if (minRetain === undefined || !retainAccuracy) return;
  const accuracy = await retainAccuracy();
  if (accuracy < minRetain)
    throw usageError('--min-retain asks for more than the model has.', {
      expected: `at most ${show(accuracy)}, its accuracy on the retain set`,
      got: `${minRetain}`,
    });
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

const advice = 'Choose smaller --unlearn-rate and --align-rate.';

const harmful = (harm: string) =>
  modelError('The first epoch does harm already: there is nothing to go back to.', {
    got: harm,
    hint: 'Choose smaller --unlearn-rate and --align-rate, or allow more.',
  });

const copyOf = (values: ReadonlyMap<string, Floats>): Map<string, Floats> =>
  new Map([...values].map(([name, own]) => [name, own.slice()]));

const change = (losses: readonly number[]): string =>
  `${show(losses[0])} -> ${show(losses[losses.length - 1])}`;
