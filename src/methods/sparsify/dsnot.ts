/**
 * DSnoT, dynamic sparsity without training (arXiv 2310.08915): swaps pruned and kept weights of a
 * row until the expected output of the pruned row is close to that of the dense one.
 *
 * d = W·sum, what a weight contributes to the output summed over a sample's tokens.
 * E = Σ d over pruned weights, the expected output that is missing. E > 0: the output is too small.
 * g = d / variance^varPower, what ranks pruned weights for growing back.
 *
 * d, g, the Wanda scores and E are float32, rounded after each operation.
 */

import type { InputStatistics } from '../calibration/statistics.js';
import { CandidatePool } from './candidates.js';
import type { LossGate } from './loss.js';
import type { Pattern } from './pattern.js';
import { inputNorms } from './scores.js';

const { abs, fround } = Math;

export interface DsnotOptions {
  /** Most swaps per row; 50 in the paper's code. */
  cycles: number;
  /** A row is done when |E| <= threshold; 0.1. Units of `InputStatistics.sum` times weight. */
  threshold: number;
  /** Power of the input variance that divides the growing score; 1. */
  varPower: number;
  /** Stop before a swap that would change the sign of E. Always so for N:M patterns; false. */
  sameSign: boolean;
}

/** Why a row stopped. */
export const StopCode = { threshold: 0, cycles: 1, exhausted: 2, sign: 3 } as const;

/** What refinement did to each row [rows]. */
export interface RefinementTrace {
  initialError: Float32Array;
  finalError: Float32Array;
  swaps: Uint32Array;
  /** Swaps that the output loss refused. */
  refused: Uint32Array;
  /** A `StopCode`. */
  stop: Uint8Array;
}

/**
 * Refines masks row by row. A row stops for good at the threshold, after `cycles` swaps, when no
 * candidate of the needed sign is left, or by the sign rule. Candidates come from the initial mask
 * only: a regrown weight is not pruned again, nor the reverse.
 *
 * Unstructured: grows the highest |g| whose sign is that of E, prunes the lowest Wanda score among
 * kept weights whose d has the other sign. N:M: prunes the lowest score in the group of the grown
 * weight whatever its sign, so |E| may rise.
 *
 * With a `LossGate` a swap is made only if it lowers the output error on sampled tokens; one that is
 * refused counts as a cycle, and its two weights are not offered again. (Beyond the paper: driving
 * the mean error to zero at any price makes narrow layers worse.)
 *
 * Ties: for E > 0 the higher column grows first, for E < 0 the lower; the lower is pruned first.
 */
export class RowRefiner {
  readonly #groupSize: number;
  readonly #cycles: number;
  readonly #threshold: number;
  readonly #sameSign: boolean;
  readonly #sum: Float32Array;
  readonly #norms: Float32Array;
  readonly #divisors: Float32Array;
  readonly #growPool: CandidatePool;
  readonly #prunePool: CandidatePool;
  /** N:M: 1 where the initial mask keeps a weight that was not pruned since. */
  readonly #prunable: Uint8Array;
  readonly #gate: LossGate | undefined;

  constructor(
    pattern: Pattern,
    statistics: Pick<InputStatistics, 'scaler' | 'sum' | 'variance'>,
    options: DsnotOptions,
    gate?: LossGate,
  ) {
    const cols = statistics.sum.length;
    this.#groupSize = pattern.kind === 'nm' ? pattern.m : 0;
    this.#cycles = options.cycles;
    this.#threshold = fround(options.threshold);
    this.#sameSign = options.sameSign || pattern.kind === 'nm';
    this.#sum = statistics.sum;
    this.#norms = inputNorms(statistics.scaler);
    this.#divisors = statistics.variance.map((v) => power(v, options.varPower));
    this.#growPool = new CandidatePool(cols, 'highest');
    this.#prunePool = new CandidatePool(cols, 'lowest');
    this.#prunable = new Uint8Array(cols);
    this.#gate = gate;
  }

  /**
   * Refines the row of `mask` (1 = keep) at `start`, where its weights are in `w` too. `scores`
   * [cols] made the initial mask. Reports in `trace[row]`.
   */
  refine(
    w: Float32Array,
    scores: Float32Array,
    mask: Uint8Array,
    start: number,
    trace: RefinementTrace,
    row: number,
  ): void {
    this.#startRow(mask, start);
    const initialError = this.#missingOutput(w, start);
    const initialSign = Math.sign(initialError);
    let error = initialError;
    let swaps = 0;
    let refused = 0;
    let stop: number = StopCode.cycles;
    for (let cycle = 0; cycle < this.#cycles; cycle++) {
      if (!(abs(error) > this.#threshold)) {
        stop = StopCode.threshold;
        break;
      }
      if (cycle === 0) this.#rankCandidates(w, start);
      const sign = error > 0 ? 1 : -1;
      const grow = this.#growPool.take(sign);
      const prune = this.#groupSize
        ? this.#lowestInGroup(grow, scores)
        : this.#prunePool.take(-sign);
      if (grow < 0 || prune < 0) {
        stop = StopCode.exhausted;
        break;
      }
      const pruned = fround(w[start + prune] * this.#sum[prune]);
      const grown = fround(w[start + grow] * this.#sum[grow]);
      const after = fround(fround(error + pruned) - grown);
      if (this.#sameSign && Math.sign(after) !== initialSign) {
        stop = StopCode.sign;
        break;
      }
      this.#prunable[prune] = 0;
      if (this.#gate?.trySwap(row, grow, w[start + grow], prune, w[start + prune]) === false) {
        refused++;
        continue;
      }
      mask[start + prune] = 0;
      mask[start + grow] = 1;
      error = after;
      swaps++;
    }
    trace.initialError[row] = initialError;
    trace.finalError[row] = error;
    trace.swaps[row] = swaps;
    trace.refused[row] = refused;
    trace.stop[row] = stop;
  }

  /** Parts the row's columns into the two pools. */
  #startRow(mask: Uint8Array, start: number): void {
    const cols = this.#sum.length;
    if (this.#groupSize) this.#prunable.set(mask.subarray(start, start + cols));
    const pruned = this.#growPool.columns;
    const kept = this.#prunePool.columns;
    let prunedCount = 0;
    let keptCount = 0;
    // Written without branches, half of which would be mispredicted.
    for (let j = 0; j < cols; j++) {
      const keep = mask[start + j];
      pruned[prunedCount] = j;
      kept[keptCount] = j;
      prunedCount += 1 - keep;
      keptCount += keep;
    }
    this.#growPool.count = prunedCount;
    this.#prunePool.count = keptCount;
  }

  /** E of the initial mask: summed in float64, in column order. */
  #missingOutput(w: Float32Array, start: number): number {
    const { columns, count } = this.#growPool;
    const sum = this.#sum;
    let error = 0;
    for (let i = 0; i < count; i++) {
      const j = columns[i];
      error += fround(w[start + j] * sum[j]);
    }
    return fround(error);
  }

  #rankCandidates(w: Float32Array, start: number): void {
    const sum = this.#sum;
    const growPool = this.#growPool;
    const divisors = this.#divisors;
    for (let i = 0; i < growPool.count; i++) {
      const j = growPool.columns[i];
      growPool.rankDescending(i, fround(w[start + j] * sum[j]) / divisors[j]);
    }
    growPool.restart();
    if (this.#groupSize) return;
    const prunePool = this.#prunePool;
    const norms = this.#norms;
    for (let i = 0; i < prunePool.count; i++) {
      const j = prunePool.columns[i];
      const contribution = fround(w[start + j] * sum[j]);
      prunePool.rankAscending(i, abs(w[start + j]) * norms[j], contribution);
    }
    prunePool.restart();
  }

  /** N:M: the prunable column with the lowest score in the group of `grow`, -1 when there is none. */
  #lowestInGroup(grow: number, scores: Float32Array): number {
    if (grow < 0) return -1;
    const from = grow - (grow % this.#groupSize);
    let lowest = -1;
    for (let j = from; j < from + this.#groupSize; j++) {
      if (this.#prunable[j] && (lowest < 0 || scores[j] < scores[lowest])) lowest = j;
    }
    return lowest;
  }
}

/** v^exponent; exact for the usual exponents, so that float32 rounding agrees with torch. */
function power(v: number, exponent: number): number {
  if (exponent === 0.5) return Math.sqrt(v);
  if (exponent === 2) return v * v;
  return v ** exponent;
}
