/**
 * Which channels to keep, by the norms of their filters.
 *
 *   W   [N, D] filters, a row each
 *   N   channels; n of them are kept
 */
import { symmetricProduct } from '../../linalg/matrix.js';
import { roundHalfEven } from './rounding.js';

/** Σ|w| of each row of W [rows, cols]. */
export function l1Norms(w: Float64Array, rows: number, cols: number): Float64Array {
  return rowSums(w, rows, cols, Math.abs);
}

/** ‖w‖₂ of each row of W [rows, cols]. */
export function l2Norms(w: Float64Array, rows: number, cols: number): Float64Array {
  return rowSums(w, rows, cols, (x) => x * x).map(Math.sqrt);
}

function rowSums(w: Float64Array, rows: number, cols: number, term: (x: number) => number) {
  const sums = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    let sum = 0;
    for (let k = i * cols; k < (i + 1) * cols; k++) sum += term(w[k]);
    sums[i] = sum;
  }
  return sums;
}

/**
 * Σⱼ‖wᵢ - wⱼ‖₂ of each row of W [rows, cols]. The filter nearest the geometric median of all has the
 * least, and is the one that the others replace best (FPGM, arXiv 1811.00250).
 */
export function geometricMedianDistances(
  w: Float64Array,
  rows: number,
  cols: number,
): Float64Array {
  const gram = symmetricProduct(w, w, rows, cols);
  const sums = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < i; j++) {
      const square = gram[i * (rows + 1)] + gram[j * (rows + 1)] - 2 * gram[i * rows + j];
      // Below zero only by rounding, when two filters are the same.
      const distance = Math.sqrt(Math.max(0, square));
      sums[i] += distance;
      sums[j] += distance;
    }
  }
  return sums;
}

export interface KeepCount {
  /** Fraction of channels to remove, in [0, 1). */
  ratio: number;
  /** The kept count is rounded up to a multiple of it, if there are so many channels. */
  align?: number;
  /** Equal runs of channels of which the same number is kept. */
  groups?: number;
}

/**
 * How many of `channels` to keep: per group round half to even of size·(1 - ratio), at least one,
 * then up to the next multiple of `align` in all. ratio 0 keeps every channel.
 */
export function keptCount(channels: number, { ratio, align = 1, groups = 1 }: KeepCount): number {
  const size = channels / groups;
  let perGroup = Math.max(1, roundHalfEven(size * (1 - ratio)));
  while (perGroup < size && (perGroup * groups) % align !== 0) perGroup++;
  return perGroup * groups;
}

/**
 * The `count` channels of highest score, ascending; of equal scores the lower channel is kept. With
 * groups, the count/groups highest of each.
 */
export function highest(scores: Float64Array, count: number, groups = 1): Uint32Array {
  const size = scores.length / groups;
  const kept: number[] = [];
  for (let from = 0; from < scores.length; from += size) {
    const order = Array.from({ length: size }, (_, i) => from + i);
    // A stable sort keeps the lower of equals first.
    order.sort((a, b) => scores[b] - scores[a]);
    kept.push(...order.slice(0, count / groups).sort((a, b) => a - b));
  }
  return Uint32Array.from(kept);
}
