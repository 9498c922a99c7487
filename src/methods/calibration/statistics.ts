import { dataError } from '../../errors.js';
import { addProduct } from '../linalg/product.js';

/**
 * What the pruning criteria need to know of a layer's input x [tokens, C], per input channel.
 * Sums run over the tokens of a sample and are averaged over samples only, as in Wanda and DSnoT
 * (arXiv 2306.11695, 2310.08915), so they grow with the sequence length.
 */
export interface InputStatistics {
  samples: number;
  tokens: number;
  /** [C] (1/samples)·Σ x². */
  scaler: Float32Array;
  /** [C] (1/samples)·Σ x. */
  sum: Float32Array;
  /** [C] token-weighted mean over calls of the population variance within a call. */
  variance: Float32Array;
  /** [C, C] (2/samples)·Σ xᵀx (SparseGPT, arXiv 2301.00774). */
  hessian?: Float32Array;
}

/** One call's input x [tokens, C], reduced. */
export interface ActivationMoments {
  samples: number;
  tokens: number;
  /** [C] Σ x. */
  sum: Float64Array | Float32Array;
  /** [C] Σ x². */
  sumSquares: Float64Array | Float32Array;
  /** [C] Σ (x - mean of this call)²; from E[x²] - E[x]² it would drown in rounding errors. */
  centredSquares: Float64Array | Float32Array;
  /** [C, C] xᵀx. */
  gram?: Float64Array | Float32Array;
}

/**
 * Collects `InputStatistics` from reduced calls. One call should be one calibration sample:
 * variance between calls is not counted.
 *
 * Channel sums are accumulated in float64. The Gram matrix is accumulated in float32 (4·C² bytes):
 * the calls that feed it are float32 products already, and 128 additions add less to the error
 * than their own rounding does.
 */
export class StatisticsAccumulator {
  readonly cols: number;
  #samples = 0;
  #tokens = 0;
  readonly #sum: Float64Array;
  readonly #sumSquares: Float64Array;
  readonly #centredSquares: Float64Array;
  readonly #gram: Float32Array | undefined;

  constructor(cols: number, options: { gram: boolean }) {
    this.cols = cols;
    this.#sum = new Float64Array(cols);
    this.#sumSquares = new Float64Array(cols);
    this.#centredSquares = new Float64Array(cols);
    this.#gram = options.gram ? new Float32Array(cols * cols) : undefined;
  }

  get hasGram(): boolean {
    return this.#gram !== undefined;
  }

  get samples(): number {
    return this.#samples;
  }

  add(call: ActivationMoments): void {
    this.#samples += call.samples;
    this.#tokens += call.tokens;
    addTo(this.#sum, call.sum);
    addTo(this.#sumSquares, call.sumSquares);
    addTo(this.#centredSquares, call.centredSquares);
    if (!this.#gram) return;
    if (!call.gram) throw new Error('this accumulator needs the Gram matrix of every call');
    addTo(this.#gram, call.gram);
  }

  /** Takes in the samples of another accumulator, which stays as it is. */
  merge(other: StatisticsAccumulator): void {
    this.add({
      samples: other.#samples,
      tokens: other.#tokens,
      sum: other.#sum,
      sumSquares: other.#sumSquares,
      centredSquares: other.#centredSquares,
      gram: other.#gram,
    });
  }

  /** The statistics so far. Throws a data error when nothing was added. */
  finish(): InputStatistics {
    if (this.#samples === 0 || this.#tokens === 0) {
      throw dataError('no calibration data reached this layer', {
        expected: 'at least one sample',
        got: `${this.#samples} samples, ${this.#tokens} tokens`,
        hint: 'Give more calibration samples, or use the magnitude criterion, which needs none.',
      });
    }
    const scale = 2 / this.#samples;
    const hessian = this.#gram?.map((x) => x * scale);
    return {
      samples: this.#samples,
      tokens: this.#tokens,
      scaler: Float32Array.from(this.#sumSquares, (x) => x / this.#samples),
      sum: Float32Array.from(this.#sum, (x) => x / this.#samples),
      variance: Float32Array.from(this.#centredSquares, (x) => x / this.#tokens),
      hessian,
    };
  }
}

/** As if the samples of all were one after the other. A single one is handed back as it is. */
export function mergeAccumulators(parts: readonly StatisticsAccumulator[]): StatisticsAccumulator {
  const [first, ...others] = parts;
  if (others.length === 0) return first;
  const all = new StatisticsAccumulator(first.cols, { gram: first.hasGram });
  for (const part of parts) all.merge(part);
  return all;
}

/** Reduces one sample x [tokens, cols] in float64, the variance in two passes. */
export function reduceActivation(
  x: Float32Array,
  tokens: number,
  cols: number,
  options: { gram: boolean },
): ActivationMoments {
  if (x.length !== tokens * cols) {
    throw new Error(`${x.length} values are not [${tokens}, ${cols}]`);
  }
  const sum = new Float64Array(cols);
  const sumSquares = new Float64Array(cols);
  const centredSquares = new Float64Array(cols);
  for (let t = 0, i = 0; t < tokens; t++) {
    for (let j = 0; j < cols; j++, i++) {
      sum[j] += x[i];
      sumSquares[j] += x[i] * x[i];
    }
  }
  for (let t = 0, i = 0; t < tokens; t++) {
    for (let j = 0; j < cols; j++, i++) {
      const centred = x[i] - sum[j] / tokens;
      centredSquares[j] += centred * centred;
    }
  }
  const gram = options.gram ? gramMatrix(x, tokens, cols) : undefined;
  return { samples: 1, tokens, sum, sumSquares, centredSquares, gram };
}

/** How many of the values are NaN or infinite. */
export function countNonFinite(values: Float32Array): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) count++;
  return count;
}

/** How many values in all fields of the statistics are NaN or infinite. */
export function countNonFiniteStatistics(statistics: InputStatistics): number {
  const { scaler, sum, variance, hessian } = statistics;
  return [scaler, sum, variance, ...(hessian ? [hessian] : [])]
    .map(countNonFinite)
    .reduce((total, count) => total + count, 0);
}

function gramMatrix(x: Float32Array, tokens: number, cols: number): Float64Array {
  const channels = new Float64Array(cols * tokens);
  for (let t = 0, i = 0; t < tokens; t++) {
    for (let j = 0; j < cols; j++, i++) channels[j * tokens + t] = x[i];
  }
  const rows = { data: channels, start: 0, stride: tokens };
  const gram = new Float64Array(cols * cols);
  addProduct({ data: gram, start: 0, stride: cols }, rows, rows, cols, cols, tokens);
  return gram;
}

function addTo(total: Float64Array | Float32Array, values: Float64Array | Float32Array): void {
  if (values.length !== total.length) {
    throw new Error(`${values.length} values added to ${total.length}`);
  }
  for (let i = 0; i < total.length; i++) total[i] += values[i];
}
