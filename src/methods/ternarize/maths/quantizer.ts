/**
 * What all quantizers of a group of weights have in common.
 *
 *   w      [n] weights of a group
 *   d      [n] importance of each weight, ≥ 0
 *   a      scale; Ŵ = a·code, or a·code + μ
 */
import { flushScale } from './codes.js';

/** Ŵ = scale·code + offset. */
export interface Levels {
  scale: number;
  offset: number;
}

/**
 * Chooses levels for `w` and writes the codes. Importance is for quantizers that say they use it.
 * A group whose scale is below 1e-30 has scale 0 and codes 0.
 */
export type FitGroup = (w: Float64Array, codes: Int8Array, d?: Float64Array) => Levels;

export interface Quantizer {
  /** Codes are low, ..., 0, ..., high. */
  low: number;
  high: number;
  /** Has an offset besides the scale. */
  offsets: boolean;
  /** Codes are tied to each other (3:4): not to be chosen one by one afterwards. */
  pattern: boolean;
  fit: FitGroup;
}

/** The codes that a quantizer chooses from. */
export type CodeRange = Pick<Quantizer, 'low' | 'high'>;

export const trits: CodeRange = { low: -1, high: 1 };

/** The code nearest to x = (w - μ)/a, ties to the one farther from zero; x must not be NaN. */
export function nearestCode(x: number, low: number, high: number): number {
  const magnitude = Math.floor(Math.abs(x) + 0.5);
  const code = x < 0 ? -magnitude : magnitude;
  return code > high ? high : code < low ? low : code;
}

/** Writes the nearest codes from `low` to `high`. With scale 0 they are 0. */
export function nearestCodes(
  w: Float64Array,
  { scale, offset }: Levels,
  { low, high }: CodeRange,
  codes: Int8Array,
): void {
  for (let i = 0; i < w.length; i++) {
    codes[i] = scale === 0 ? 0 : nearestCode((w[i] - offset) / scale, low, high);
  }
}

/** Levels without an offset, and the nearest codes to them. */
export function settle(w: Float64Array, scale: number, range: CodeRange, codes: Int8Array): Levels {
  const levels = { scale: flushScale(scale), offset: 0 };
  nearestCodes(w, levels, range, codes);
  return levels;
}
