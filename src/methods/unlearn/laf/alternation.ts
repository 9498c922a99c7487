import type { GradientModel } from '../../../autodiff/gradients.js';
import { Adam, type AdamState } from '../../../autodiff/optimizer.js';
import type { Feeds } from '../../../runtime/session.js';
import {
  type AlignmentLoss,
  alignmentLoss,
  noiseInputs,
  teacherInputs,
  unlearningLoss,
} from './losses.js';
import type { VaeSizes, VaeWeights } from './vae.js';

/** Rows [count, width] of float32, row-major. */
export interface Rows {
  values: Float32Array;
  width: number;
}

/** What a pair of steps is made of: kept examples come first. */
export interface Pair {
  /** Inputs of the model, for the kept examples and then those to forget. */
  feeds: Feeds;
  /** Representations in the original. */
  teacher: { kept: Rows; forgotten: Rows };
  /** Noise of the autoencoders. */
  noise: { kept: Rows; forgotten: Rows };
}

export interface PairLosses {
  /** Of the values before the step. */
  unlearning: number;
  /** After the first step, before the second. */
  alignment: number;
  /** Mean 1 - cos between representations and those of the original, after the first step. */
  keptShift: number;
  forgottenShift: number;
}

export interface AlternationOptions {
  /** The value with the representations. */
  split: string;
  sizes: VaeSizes;
  /** Of all examples; of those to forget. */
  vaes: { all: VaeWeights; forgotten: VaeWeights };
  /** Adam's rates for either loss. */
  rates: { unlearning: number; alignment: number };
  temperature: number;
}

/**
 * LAF's pairs of steps (algorithm 1 of arXiv 2404.00506, as in the authors' code): one down the unlearning
 * loss, then, on the same examples, one down the alignment loss, each by an Adam of its own. Normalisation
 * layers keep their statistics, and dropout does nothing. Release it when done.
 */
export class Alternation {
  readonly optimizers: { unlearning: Adam; alignment: Adam };
  readonly #unlearning: GradientModel;
  readonly #alignment: GradientModel;
  readonly #distances: AlignmentLoss['distances'];

  /**
   * @param model by the parameters of the extractor, which steps change in place
   * @param earlier state of the optimizers in a run that this one goes on from
   */
  constructor(
    model: GradientModel,
    { split, sizes, vaes, rates, temperature }: AlternationOptions,
    earlier?: { unlearning: AdamState; alignment: AdamState },
  ) {
    const alignment = alignmentLoss(split, temperature);
    this.#unlearning = model.with({ loss: unlearningLoss(split, sizes, vaes.all, vaes.forgotten) });
    this.#alignment = model.with({ loss: alignment });
    this.#distances = alignment.distances;
    this.optimizers = {
      unlearning: new Adam({ learningRate: rates.unlearning }, earlier?.unlearning),
      alignment: new Adam({ learningRate: rates.alignment }, earlier?.alignment),
    };
  }

  /**
   * @throws {NoGradientError} where an op without a rule is in the way
   * @throws {ResectError} exit 6 when the batch does not fit the model
   */
  async step({ feeds, noise, teacher }: Pair): Promise<PairLosses> {
    const unlearning = await this.#unlearning.run(feeds, { inputs: named(noiseInputs, noise) });
    this.optimizers.unlearning.step(this.#unlearning.values, unlearning.gradients);
    const alignment = await this.#alignment.run(feeds, { inputs: named(teacherInputs, teacher) });
    this.optimizers.alignment.step(this.#alignment.values, alignment.gradients);
    const mean = (name: string) => average(alignment.shown[name].data as Float64Array);
    return {
      unlearning: unlearning.loss,
      alignment: alignment.loss,
      keptShift: mean(this.#distances.kept),
      forgottenShift: mean(this.#distances.forgotten),
    };
  }

  async release(): Promise<void> {
    await this.#unlearning.release();
    await this.#alignment.release();
  }
}

type Sides<T> = { kept: T; forgotten: T };

const named = (names: Sides<string>, rows: Sides<Rows>): Feeds => ({
  [names.kept]: asTensor(rows.kept),
  [names.forgotten]: asTensor(rows.forgotten),
});

const asTensor = ({ values, width }: Rows) => ({
  dtype: 'float32' as const,
  dims: [values.length / width, width],
  data: values,
});

const average = (values: Float64Array): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
