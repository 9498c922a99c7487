/**
 * GPTQ (arXiv 2210.17323) without data: the Hessian of a convolution is Kronecker, C ⊗ T, when its
 * input's covariance is.
 *
 *   W, W̃   [N, M, taps] weights and rounded weights, δ = W - W̃
 *   C      [M, M] covariance of the input's channels
 *   T      [taps, taps] correlation of positions
 *   R      upper triangular, C = R·Rᵀ; Rt the same of T. C ⊗ T has the factor R ⊗ Rt.
 *
 * The loss is ‖δ·(R ⊗ Rt)‖². Its column (j, q) depends on δ up to (j, q) only, so the value to round
 * there is W + Σ_{before} δ·(R ⊗ Rt)/(R ⊗ Rt)_diagonal: the weights that the usual formulation reaches
 * by subtracting rows of the inverse's factor, without inverting (compare sparsegpt.ts). With
 * d[i, q] = Σ_{p ≤ q} δ[i, p]·Rt[p, q], earlier channels add Σ_{i<j} R[i, j]·d[i, q].
 */
import { upperCholeskyInPlace } from '../../linalg/cholesky.js';
import { addTimesTransposed, submatrix, transpose } from '../../linalg/matrix.js';
import { clampedCode, highestCode, type Quantized } from './quantize.js';

export interface KroneckerHessian {
  /** C [M, M] */
  channels: Float64Array;
  /** T [taps, taps] */
  taps: Float64Array;
}

export interface GptqOptions {
  bits: number;
  /** One per row of W, or one for all. */
  scales: Float64Array;
  /** Of the mean diagonal of C, added to it. */
  damping?: number;
  /** Added to the diagonal of T, which is 1. */
  tapDamping?: number;
}

/** Input channels that are settled between two updates of the rest. */
const PANEL = 32;

/**
 * Codes of W [N, M, taps], input channels in descending order of their variance, the lower of equals
 * first, the taps of each in their own order.
 * @returns undefined when C or T is not positive definite.
 */
export function gptq(
  w: Float64Array,
  hessian: KroneckerHessian,
  { bits, scales, damping = 0.01, tapDamping = 0 }: GptqOptions,
): Quantized | undefined {
  const m = Math.sqrt(hessian.channels.length);
  const taps = Math.sqrt(hessian.taps.length);
  const rows = w.length / (m * taps);
  const { order, factor } = factorChannels(hessian.channels, m, damping);
  const tapFactor = hessian.taps.slice();
  for (let q = 0; q < taps; q++) tapFactor[q * (taps + 1)] += tapDamping;
  if (!factor || !upperCholeskyInPlace(tapFactor, taps)) return undefined;

  const high = highestCode(bits);
  const codes = new Int16Array(w.length);
  // [rows, taps, M] d, channels in their order.
  const d = new Float64Array(w.length);
  const columns = transpose(factor, m, m);
  const delta = new Float64Array(taps);
  for (let from = 0; from < m; from += PANEL) {
    const width = Math.min(PANEL, m - from);
    // [rows, taps, width] Σ over channels before the panel, R[i, j]·d[i, q].
    const sums = new Float64Array(rows * taps * width);
    addTimesTransposed(
      { data: sums, start: 0, stride: width },
      { data: d, start: 0, stride: m },
      { data: columns, start: from * m, stride: m },
      rows * taps,
      width,
      from,
    );
    for (let row = 0; row < rows; row++) {
      const s = scales[scales.length === 1 ? 0 : row];
      for (let local = 0; local < width; local++) {
        const j = from + local;
        const pivot = factor[j * (m + 1)];
        const start = (row * m + order[j]) * taps;
        for (let q = 0; q < taps; q++) {
          const line = (row * taps + q) * m;
          let earlier = sums[(row * taps + q) * width + local];
          for (let i = from; i < j; i++) earlier += columns[j * m + i] * d[line + i];
          let within = 0;
          for (let p = 0; p < q; p++) within += delta[p] * tapFactor[p * taps + q];
          const tapPivot = tapFactor[q * (taps + 1)];
          const value = w[start + q] + (earlier / pivot + within) / tapPivot;
          const code = clampedCode(value / s, high);
          codes[start + q] = code;
          delta[q] = w[start + q] - s * code;
          d[line + j] = within + delta[q] * tapPivot;
        }
      }
    }
  }
  return { codes, scales };
}

/** The order of channels, and R of the damped C in that order, if there is one. */
function factorChannels(c: Float64Array, m: number, damping: number) {
  let trace = 0;
  for (let j = 0; j < m; j++) trace += c[j * (m + 1)];
  const order = Array.from({ length: m }, (_, j) => j);
  order.sort((a, b) => c[b * (m + 1)] - c[a * (m + 1)]);
  const factor = submatrix(c, m, order, order);
  for (let j = 0; j < m; j++) factor[j * (m + 1)] += (damping * trace) / m;
  return { order, factor: upperCholeskyInPlace(factor, m) ? factor : undefined };
}
