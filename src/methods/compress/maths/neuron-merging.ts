/**
 * Neuron Merging (Kim et al., NeurIPS 2020, arXiv 2010.13160): every removed channel is replaced by
 * the one kept channel that is most like it.
 *
 *   W      [N, D] filters
 *   a, b   [N] u = a·(W∗x) + b (the authors' code divides by the variance instead of its root)
 *   K, S   see mixing.ts
 */
import { timesTransposed } from '../../linalg/matrix.js';
import type { Affine } from './batch-norm.js';
import { dropMatrix } from './mixing.js';
import { l2Norms } from './select.js';

export interface MergingOptions {
  /** λ, how much the angle between filters counts, the rest being the distance of their shifts. */
  lambda?: number;
  /** A channel whose best partner is at a lower cosine is dropped. */
  threshold?: number;
}

/**
 * S [N, n]: for each removed j the kept i of least λ·(1 - cos(wᵢ, wⱼ)) + (1 - λ)·dᵢ, dᵢ being
 * |bⱼ - c·bᵢ| brought to [0, 1] over K, and S[j, i] = c = (‖wⱼ‖·aⱼ)/(‖wᵢ‖·aᵢ). The lower i of equals.
 */
export function neuronMerging(
  filters: Float64Array,
  { scale: a, shift: b }: Affine,
  kept: Uint32Array,
  { lambda = 0.85, threshold = 0.1 }: MergingOptions = {},
): Float64Array {
  const channels = a.length;
  const depth = filters.length / channels;
  const n = kept.length;
  const norms = l2Norms(filters, channels, depth);
  const basis = new Float64Array(n * depth);
  kept.forEach((channel, m) => {
    basis.set(filters.subarray(channel * depth, (channel + 1) * depth), m * depth);
  });
  const dots = timesTransposed(filters, basis, channels, n, depth);
  const s = dropMatrix(kept, channels);
  const isKept = new Set(kept);
  const ratios = new Float64Array(n);
  const distances = new Float64Array(n);
  for (let j = 0; j < channels; j++) {
    if (isKept.has(j) || norms[j] === 0) continue;
    let nearest = Infinity;
    let farthest = -Infinity;
    for (let m = 0; m < n; m++) {
      const i = kept[m];
      ratios[m] = (norms[j] * a[j]) / (norms[i] * a[i]);
      distances[m] = Math.abs(b[j] - ratios[m] * b[i]);
      // A kept channel that is constant can stand for no other.
      if (!Number.isFinite(distances[m])) continue;
      nearest = Math.min(nearest, distances[m]);
      farthest = Math.max(farthest, distances[m]);
    }
    const spread = farthest > nearest ? farthest - nearest : 1;
    let best = -1;
    let bestCost = Infinity;
    let bestCosine = 0;
    for (let m = 0; m < n; m++) {
      if (!Number.isFinite(distances[m])) continue;
      const cosine = dots[j * n + m] / (norms[j] * norms[kept[m]]);
      const cost = lambda * (1 - cosine) + ((1 - lambda) * (distances[m] - nearest)) / spread;
      if (cost < bestCost) {
        best = m;
        bestCost = cost;
        bestCosine = cosine;
      }
    }
    if (best >= 0 && bestCosine >= threshold) s[j * n + best] = ratios[best];
  }
  return s;
}
