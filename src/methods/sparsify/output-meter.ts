import type { LinearAlgebra } from '../../runtime/linear-algebra.js';
import type { PruneTask } from './prune.js';

/** Relative error of a layer's output, ‖X(W - W')ᵀ‖ / ‖XWᵀ‖, and the part of it that is the mean's. */
export interface OutputError {
  total: number;
  mean: number;
}

/** Measures what a change of weights does to a layer's output on sampled token rows X. */
export class OutputMeter {
  /** [cols, cols] XᵀX. */
  readonly gram: Float32Array;
  readonly #cols: number;
  readonly #algebra: LinearAlgebra;
  /** [cols] mean input over all calibration tokens. */
  readonly #mean: Float64Array;
  readonly #tokens: number;
  /** ‖XWᵀ‖² */
  #output = 0;

  private constructor(
    gram: Float32Array,
    cols: number,
    algebra: LinearAlgebra,
    mean: Float64Array,
    tokens: number,
  ) {
    this.gram = gram;
    this.#cols = cols;
    this.#algebra = algebra;
    this.#mean = mean;
    this.#tokens = tokens;
  }

  /** Undefined where there is no calibration data to measure on. */
  static async of(
    { w, cols, samples, statistics }: PruneTask,
    algebra: LinearAlgebra | undefined,
  ): Promise<OutputMeter | undefined> {
    if (!samples || !statistics || !algebra) return undefined;
    const tokens = samples.length / cols;
    const gram = await algebra.gram(samples, cols);
    const perToken = statistics.samples / statistics.tokens;
    const mean = Float64Array.from(statistics.sum, (s) => s * perToken);
    const meter = new OutputMeter(gram, cols, algebra, mean, tokens);
    meter.#output = innerProduct(w, await meter.gradient(w));
    return meter;
  }

  /** [rows, cols] taken·XᵀX, for weights `taken` [rows, cols]. */
  gradient(taken: Float32Array): Promise<Float32Array> {
    return this.#algebra.timesTransposed(taken, this.gram, this.#cols);
  }

  /** The error when `taken` [rows, cols] is taken from the weights. */
  async error(taken: Float32Array): Promise<OutputError> {
    return this.errorFrom(taken, await this.gradient(taken));
  }

  /** The same, where the gradient of `taken` is known. */
  errorFrom(taken: Float32Array, gradient: Float32Array): OutputError {
    if (this.#output <= 0) return { total: 0, mean: 0 };
    let mean = 0;
    for (let i = 0; i < taken.length; ) {
      let row = 0;
      for (let c = 0; c < this.#cols; c++, i++) row += taken[i] * this.#mean[c];
      mean += row * row;
    }
    return {
      total: Math.sqrt(Math.max(0, innerProduct(taken, gradient)) / this.#output),
      // The mean error is known from all tokens; here as if the sampled rows had just that error.
      mean: Math.sqrt((mean * this.#tokens) / this.#output),
    };
  }
}

function innerProduct(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
