/**
 * Codes {-2, -1, 0, 1}·a with the least squared error Σ dᵢ·(wᵢ - a·cᵢ)²; a may be negative. Two bits, as
 * ternary codes take.
 *
 * As a falls from infinity, wᵢ leaves code 0 for ±1 at a = 2·|wᵢ|, and a negative one leaves -1 for -2
 * at a = ⅔·|wᵢ|. With S = Σ dᵢ·wᵢ·cᵢ and Q = Σ dᵢ·cᵢ² the best scale for given codes, S/Q, lowers the
 * error by S²/Q. Between two such places codes do not change, so the largest S²/Q after any of them is
 * the global optimum for a > 0; a < 0 is the same for -w.
 */
import { MagnitudeOrder } from './order.js';
import { type FitGroup, settle } from './quantizer.js';

/** The exact fit, O(n log n); a positive scale when both signs are as good. Uses importance. */
export function fourLevelFit(): FitGroup {
  const sorter = new MagnitudeOrder();
  return (w, codes, d) => {
    const order = sorter.of(w);
    const plain = bestScale(w, order, 1, d);
    const mirrored = bestScale(w, order, -1, d);
    const scale = plain.gain >= mirrored.gain ? plain.scale : -mirrored.scale;
    return settle(w, scale, { low: -2, high: 1 }, codes);
  };
}

/** The best a > 0 for sign·w. */
function bestScale(
  w: Float64Array,
  order: Uint32Array,
  sign: 1 | -1,
  d?: Float64Array,
): { scale: number; gain: number } {
  const n = order.length;
  const nextNegative = (from: number): number => {
    let k = from;
    while (k < n && !(sign * w[order[k]] < 0)) k++;
    return k;
  };
  const best = { scale: 0, gain: 0 };
  let s = 0;
  let q = 0;
  // Weights that have left 0, and negative ones that have left -1.
  let one = 0;
  let two = nextNegative(0);
  while (one < n || two < n) {
    const leavesOne = two < n ? (2 / 3) * Math.abs(w[order[two]]) : -1;
    // One of them must move on, whatever comes in: NaN is not negative, and so it leaves 0 here.
    const first = one < n && !(2 * Math.abs(w[order[one]]) < leavesOne);
    const i = order[first ? one : two];
    const importance = d ? d[i] : 1;
    if (first) one++;
    else two = nextNegative(two + 1);
    if (importance === 0) continue;
    s += importance * Math.abs(w[i]);
    q += (first ? 1 : 3) * importance;
    if ((s * s) / q >= best.gain) {
      best.gain = (s * s) / q;
      best.scale = s / q;
    }
  }
  return best;
}
