/**
 * Moments of a tensor after an elementwise activation, when before it the channels are jointly
 * Gaussian.
 *
 *   m, s   mean and standard deviation before
 *   ρ      correlation before
 */
import type { CompressedMoments, Moments, Signal } from './moments.js';

export interface Activation {
  moments(before: Moments): Moments;
  /** Of the compressed channels; `before` must have some. */
  compressed(before: Required<Signal>): CompressedMoments;
}

/** What an activation makes of each channel by itself. */
interface Channels {
  mean: Float64Array;
  variance: Float64Array;
}

/** How an activation treats channels and pairs of them. */
export interface PairRule<C extends Channels> {
  /** @param m [N] @param s [N] */
  channels(m: Float64Array, s: Float64Array): C;
  /** Cov(f(uᵢ), f(uⱼ)), i of `left` and j of `right`. */
  covariance(left: C, i: number, right: C, j: number, rho: number): number;
}

/** Correlations are brought this close to ±1, where covariances have a branch point. */
const RHO_CLIP = 1e-9;

export function activation<C extends Channels>(rule: PairRule<C>): Activation {
  const prepare = ({ mean, covariance }: Moments) => {
    const s = mean.map((_, i) => Math.sqrt(Math.max(0, covariance[i * (mean.length + 1)])));
    return { s, channels: rule.channels(mean, s) };
  };
  const pair = (left: Side<C>, i: number, right: Side<C>, j: number, covariance: number) => {
    const scale = left.s[i] * right.s[j];
    if (!(scale > 0)) return 0;
    const rho = Math.min(1 - RHO_CLIP, Math.max(RHO_CLIP - 1, covariance / scale));
    return rule.covariance(left.channels, i, right.channels, j, rho);
  };
  const symmetric = (side: Side<C>, before: Float64Array): Moments => {
    const { mean, variance } = side.channels;
    const n = mean.length;
    const covariance = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < i; j++) {
        const value = pair(side, i, side, j, before[i * n + j]);
        covariance[i * n + j] = value;
        covariance[j * n + i] = value;
      }
      covariance[i * (n + 1)] = variance[i];
    }
    return { mean, covariance };
  };
  return {
    moments: (before) => symmetric(prepare(before), before.covariance),
    compressed: ({ original, compressed }) => {
      const left = prepare(original);
      const right = prepare(compressed);
      const n = right.s.length;
      const cross = compressed.cross.map((value, k) =>
        pair(left, Math.floor(k / n), right, k % n, value),
      );
      return { ...symmetric(right, compressed.covariance), cross };
    },
  };
}

interface Side<C> {
  s: Float64Array;
  channels: C;
}
