/**
 * The ternary codes and the scale with the least squared error Σ dᵢ·(wᵢ - a·Tᵢ)².
 *
 * Given a, each code is best on its own: Tᵢ = ±1 where |wᵢ| ≥ a/2. So the best codes keep the k largest
 * magnitudes for some k, whatever the importances, and for those the best scale is
 * a = S/D, S = Σ dᵢ·|wᵢ| and D = Σ dᵢ over the kept ones, which lowers the error by S²/D. The k with the
 * largest S²/D is the global optimum.
 */
import { MagnitudeOrder } from './order.js';
import { type FitGroup, settle, trits } from './quantizer.js';

/** The exact fit, O(n log n); of equal errors the one that keeps more. Uses importance. */
export function exactFit(): FitGroup {
  const order = new MagnitudeOrder();
  return (w, codes, d) => settle(w, bestScale(w, order.of(w), d), trits, codes);
}

function bestScale(w: Float64Array, order: Uint32Array, d?: Float64Array): number {
  let s = 0;
  let total = 0;
  let gain = 0;
  let scale = 0;
  for (let k = 0; k < order.length; k++) {
    const i = order[k];
    const importance = d ? d[i] : 1;
    if (importance === 0) continue;
    s += importance * Math.abs(w[i]);
    total += importance;
    if ((s * s) / total >= gain) {
      gain = (s * s) / total;
      scale = s / total;
    }
  }
  return scale;
}
