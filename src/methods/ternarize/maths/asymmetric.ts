/**
 * Asymmetric ternary codes of PT2-LLM (arXiv 2510.03267): Ŵ = a·T + μ.
 *
 *   w      [n] weights
 *   d      [n] importance
 *   T      [n] codes
 *   Δ      first threshold, 0.75·mean|w - μ|
 */
import { flushScale } from './codes.js';
import { type FitGroup, type Levels, nearestCodes, trits } from './quantizer.js';

const ITERATIONS = 10;
const FIRST_THRESHOLD = 0.75;

/**
 * From μ = mean w and T by Δ, solves (a, μ) given T and T given (a, μ) in turn, until T stays the same
 * or ten times. No step raises the error; the end need not be the global optimum. Uses importance.
 * A constant group has scale 0 and its value as the offset.
 */
export const asymmetricFit: FitGroup = (w, codes, d) => {
  let total = 0;
  let sum = 0;
  for (let i = 0; i < w.length; i++) {
    const importance = d ? d[i] : 1;
    total += importance;
    sum += importance * w[i];
  }
  let levels = { scale: 0, offset: total > 0 ? sum / total : 0 };
  firstCodes(w, levels.offset, codes);
  const before = new Int8Array(w.length);
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    levels = solveLevels(w, codes, levels, d);
    before.set(codes);
    nearestCodes(w, levels, trits, codes);
    if (codes.every((code, i) => code === before[i])) break;
  }
  levels.scale = flushScale(levels.scale);
  if (levels.scale === 0) codes.fill(0);
  return levels;
};

function firstCodes(w: Float64Array, mean: number, codes: Int8Array): void {
  let apart = 0;
  for (let i = 0; i < w.length; i++) apart += Math.abs(w[i] - mean);
  const threshold = (FIRST_THRESHOLD * apart) / w.length;
  for (let i = 0; i < w.length; i++) {
    const x = w[i] - mean;
    codes[i] = Math.abs(x) >= threshold ? Math.sign(x) : 0;
  }
}

/** The normal equations of (a, μ); with all codes equal they have no single solution, and both stay. */
function solveLevels(w: Float64Array, codes: Int8Array, old: Levels, d?: Float64Array): Levels {
  let n = 0;
  let t = 0;
  let tt = 0;
  let sum = 0;
  let wt = 0;
  for (let i = 0; i < w.length; i++) {
    const importance = d ? d[i] : 1;
    const code = codes[i];
    n += importance;
    t += importance * code;
    tt += importance * code * code;
    sum += importance * w[i];
    wt += importance * w[i] * code;
  }
  const determinant = tt * n - t * t;
  // Importances of very different size leave rounding errors where there should be zero.
  if (!(determinant > 1e-12 * tt * n)) return old;
  return { scale: (wt * n - sum * t) / determinant, offset: (tt * sum - t * wt) / determinant };
}
