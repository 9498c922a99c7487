/**
 * Published ternary quantizers, to compare with. None uses importance.
 *
 *   m      mean |w| of the group
 *   Δ      threshold: code ±1 where |w| ≥ Δ
 */
import { flushScale } from './codes.js';
import { MagnitudeOrder } from './order.js';
import { type CodeRange, type FitGroup, type Levels, settle, trits } from './quantizer.js';

/** BitNet b1.58 (arXiv 2402.17764), Tequila's own: a = m, Δ = m/2. */
export const absmean: FitGroup = (w, codes) => settle(w, meanMagnitude(w), trits, codes);

/** a = median |w|, of an even number the mean of the middle two; Δ = a/2. */
export function absmedian(): FitGroup {
  const sorter = new MagnitudeOrder();
  return (w, codes) => {
    const order = sorter.of(w);
    const n = order.length;
    if (n === 0) return settle(w, 0, trits, codes);
    const middle = Math.abs(w[order[n >> 1]]) + Math.abs(w[order[(n - 1) >> 1]]);
    return settle(w, middle / 2, trits, codes);
  };
}

/**
 * Δ = factor·m, a = mean |w| of those kept. The factor is 0.7 in Ternary Weight Networks (arXiv
 * 1605.04711), 0.75 in Tequila's code; with 0.5 these are the codes of `absmean` with their best scale.
 */
export function thresholdFit(factor: number): FitGroup {
  return (w, codes) => {
    const threshold = factor * meanMagnitude(w);
    let sum = 0;
    let kept = 0;
    for (let i = 0; i < w.length; i++) {
      const isKept = Math.abs(w[i]) >= threshold;
      codes[i] = isKept ? (w[i] < 0 ? -1 : 1) : 0;
      if (isKept) {
        sum += Math.abs(w[i]);
        kept++;
      }
    }
    return withCodes(codes, kept > 0 ? sum / kept : 0);
  };
}

/** Integers by rounding to the nearest, a = max |w| / high: what other methods are measured by. */
export const absmaxFit =
  (range: CodeRange): FitGroup =>
  (w, codes) => {
    let most = 0;
    for (let i = 0; i < w.length; i++) most = Math.max(most, Math.abs(w[i]));
    return settle(w, most / range.high, range, codes);
  };

/** Inputs of which Sherry zeroes one. */
const RUN = 4;

/**
 * Sherry's 3:4 pattern: of every four weights the smallest is 0, the lower index of equals, the others
 * ±a, a = mean |w| of those kept. A last run of fewer than four keeps all: the zero is in its padding.
 * A kept weight that is 0 has code 0.
 */
export const sherry: FitGroup = (w, codes) => {
  const n = w.length;
  let sum = 0;
  let kept = n;
  for (let i = 0; i < n; i++) {
    codes[i] = Math.sign(w[i]);
    sum += Math.abs(w[i]);
  }
  for (let start = 0; start + RUN <= n; start += RUN) {
    let least = start;
    for (let i = start + 1; i < start + RUN; i++)
      if (Math.abs(w[i]) < Math.abs(w[least])) least = i;
    codes[least] = 0;
    sum -= Math.abs(w[least]);
    kept--;
  }
  return withCodes(codes, kept > 0 ? sum / kept : 0);
};

function withCodes(codes: Int8Array, wanted: number): Levels {
  const scale = flushScale(wanted);
  if (scale === 0) codes.fill(0);
  return { scale, offset: 0 };
}

function meanMagnitude(w: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < w.length; i++) sum += Math.abs(w[i]);
  return w.length > 0 ? sum / w.length : 0;
}
