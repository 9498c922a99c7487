/**
 * Which channels to keep, by the norms of their filters.
 *
 *   W   [N, D] filters, a row each
 *   N   channels; n of them are kept
 */
import { symmetricProduct } from '../../linalg/matrix.js';
import { type Limits, Remaining } from './limits.js';
import { range } from './mixing.js';
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
 * The `count` channels of highest score, ascending; of equal scores the lower channel is kept. More,
 * where limits forbid to remove another.
 */
export function highest(scores: Float64Array, count: number, limits?: Limits): Uint32Array {
  const channels = range(scores.length);
  const left = new Remaining(scores.length, count, limits);
  const removed = new Set<number>();
  const order = [...channels].sort((a, b) => scores[a] - scores[b] || b - a);
  for (const channel of order) {
    if (removed.size === scores.length - count) break;
    if (!left.mayGo(channel)) continue;
    left.remove(channel);
    removed.add(channel);
  }
  return channels.filter((channel) => !removed.has(channel));
}
