/**
 * Cross-layer equalization (Nagel et al., arXiv 1906.04721): a ReLU lets a positive factor through,
 * so that the weight ranges of both sides of a channel can be made equal. Needed where all channels
 * share one scale. Not across ReLU6, a residual sum, or several consumers.
 *
 *   W, b   [N, D], [N] what produces the channels
 *   V      [outer, N, inner] what reads them
 */
import type { AxisView } from './mixing.js';

export interface Equalized {
  /** [N] W and b were divided by it, V multiplied. */
  scales: Float64Array;
  w: Float64Array;
  b: Float64Array;
  v: Float64Array;
}

/** sᵢ = √(max|wᵢ| / max|V[:, i]|), 1 where either is zero; both ranges become √(product). */
export function equalize(
  w: Float64Array,
  b: Float64Array,
  v: Float64Array,
  view: AxisView,
): Equalized {
  const { outer, channels, inner } = view;
  const depth = w.length / channels;
  const read = new Float64Array(channels);
  for (let k = 0, p = 0; p < outer; p++) {
    for (let i = 0; i < channels; i++) {
      for (let t = 0; t < inner; t++, k++) read[i] = Math.max(read[i], Math.abs(v[k]));
    }
  }
  const scales = read.map((range, i) => {
    let made = 0;
    for (let k = i * depth; k < (i + 1) * depth; k++) made = Math.max(made, Math.abs(w[k]));
    return made > 0 && range > 0 ? Math.sqrt(made / range) : 1;
  });
  return {
    scales,
    w: w.map((x, k) => x / scales[Math.floor(k / depth)]),
    b: b.map((x, i) => x / scales[i]),
    v: v.map((x, k) => x * scales[Math.floor(k / inner) % channels]),
  };
}
