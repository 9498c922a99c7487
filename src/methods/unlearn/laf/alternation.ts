import type { GradientModel } from '../../../autodiff/gradients.js';
import { type Alternatives, alternatives } from '../../../autodiff/loss-graph.js';
import { Adam, type AdamState, type Floats } from '../../../autodiff/optimizer.js';
import type { Feeds } from '../../../runtime/session.js';
import { SessionThread } from '../../../runtime/session-thread.js';
import { alignmentTerm, keptInput, noiseInput, teacherInput, unlearningTerm } from './losses.js';
import { asTensor, countOf, type Rows } from './rows.js';
import type { VaeSizes, VaeWeights } from './vae.js';

/** Examples of one side of a pair of steps. */
export interface SideBatch {
  /** Inputs of the model. */
  feeds: Feeds;
  /** Their representations in the original. */
  teacher: Rows;
  /** Noise of the autoencoder. */
  noise: Rows;
}

/** What a pair of steps is made of. */
export interface Pair {
  kept: SideBatch;
  forgotten: SideBatch;
}

export type PairLosses = {
  /** Of the values before the step. */
  unlearning: number;
  /** After the first step, before the second. */
  alignment: number;
};

export interface AlternationOptions {
  /** The value with the representations. */
  split: string;
  sizes: VaeSizes;
  /** Of all examples; of those to forget. */
  vaes: { all: VaeWeights; forgotten: VaeWeights };
  /** Adam's rates for either loss. */
  rates: { unlearning: number; alignment: number };
  temperature: number;
  /** From two on, kept examples and those to forget run at the same time. */
  threads: number;
}

type LossName = 'unlearning' | 'alignment';

/** The model under the terms of both losses for one side. */
interface Side {
  model: GradientModel;
  take: Alternatives<LossName>['take'];
}

/**
 * LAF's pairs of steps (algorithm 1 of arXiv 2404.00506, as in the authors' code): one down the unlearning
 * loss, then, on the same examples, one down the alignment loss, each by an Adam of its own. Normalisation
 * layers keep their statistics, and dropout does nothing. Release it when done.
 */
export class Alternation {
  readonly optimizers: { unlearning: Adam; alignment: Adam };
  readonly #values: ReadonlyMap<string, Floats>;
  readonly #kept: Side;
  readonly #forgotten: Side;
  readonly #thread?: SessionThread;

  /**
   * @param model by the parameters of the extractor, which steps change in place
   * @param earlier state of the optimizers in a run that this one goes on from
   */
  constructor(
    model: GradientModel,
    { split, sizes, vaes, rates, temperature, threads }: AlternationOptions,
    earlier?: { unlearning: AdamState; alignment: AdamState },
  ) {
    this.#values = model.values;
    this.#thread = threads > 1 ? new SessionThread() : undefined;
    const side = (name: keyof Pair, vae: VaeWeights, thread?: SessionThread): Side => {
      const loss = alternatives({
        unlearning: unlearningTerm(name, split, sizes, vae),
        alignment: alignmentTerm(name, split, temperature),
      });
      return {
        model: model.with({ loss, threads: Math.max(1, Math.floor(threads / 2)), thread }),
        take: loss.take,
      };
    };
    this.#kept = side('kept', vaes.all);
    this.#forgotten = side('forgotten', vaes.forgotten, this.#thread);
    this.optimizers = {
      unlearning: new Adam({ learningRate: rates.unlearning }, earlier?.unlearning),
      alignment: new Adam({ learningRate: rates.alignment }, earlier?.alignment),
    };
  }

  /**
   * @throws {NoGradientError} where an op without a rule is in the way
   * @throws {ResectError} exit 6 when the batch does not fit the model
   */
  async step(pair: Pair): Promise<PairLosses> {
    return {
      unlearning: await this.#descend('unlearning', pair),
      alignment: await this.#descend('alignment', pair),
    };
  }

  /** One step down a loss. @returns the loss before it */
  async #descend(loss: LossName, pair: Pair): Promise<number> {
    const count = {
      dtype: 'float32' as const,
      dims: [],
      data: Float32Array.of(countOf(pair.kept.noise)),
    };
    const run = ({ model, take }: Side, { feeds, noise, teacher }: SideBatch) =>
      model.run(feeds, {
        inputs: {
          [noiseInput]: asTensor(noise),
          [teacherInput]: asTensor(teacher),
          [keptInput]: count,
          ...take(loss),
        },
      });
    // The one with a thread of its own comes first: the other blocks this thread.
    const [forgotten, kept] = await Promise.all([
      run(this.#forgotten, pair.forgotten),
      run(this.#kept, pair.kept),
    ]);
    for (const [name, gradient] of kept.gradients) {
      const other = forgotten.gradients.get(name) as Floats;
      for (let i = 0; i < gradient.length; i++) gradient[i] += other[i];
    }
    this.optimizers[loss].step(this.#values, kept.gradients);
    return kept.loss + forgotten.loss;
  }

  async release(): Promise<void> {
    try {
      for (const { model } of [this.#kept, this.#forgotten]) await model.release();
    } finally {
      await this.#thread?.close();
    }
  }
}
