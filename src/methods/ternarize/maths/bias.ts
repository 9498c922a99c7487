/**
 * Biases that stand in for what the coded weights lose.
 *
 *   W, Ŵ   [rows, K] weights and coded ones
 *   μ      [K] E[x]
 *   D      the weights of a row with code 0, its dead zone
 */
import type { LayerCodes, LayerWeights } from './codes.js';
import { decodeRow } from './codes.js';

/** [rows] (W - Ŵ)·μ: with it the mean of the error is 0. The best constant for given codes. */
export const fullBias = (
  layer: LayerWeights,
  codes: LayerCodes,
  mean: Float64Array,
): Float64Array => lostSums(layer, codes, mean, false);

/** [rows] Σ_D (w - ŵ)·μ, the best constant for what the dead zone drops. */
export const deadBias = (
  layer: LayerWeights,
  codes: LayerCodes,
  mean: Float64Array,
): Float64Array => lostSums(layer, codes, mean, true);

/** [rows] Σ_D λ·w: Tequila's bias (arXiv 2509.23809), there with λ = 1e-3 and trained weights. */
export const lambdaBias = (layer: LayerWeights, codes: LayerCodes, lambda = 1e-3): Float64Array =>
  lostSums(layer, codes, new Float64Array(layer.cols).fill(lambda), true);

function lostSums(
  { w, rows, cols }: LayerWeights,
  codes: LayerCodes,
  factor: Float64Array,
  deadOnly: boolean,
): Float64Array {
  const bias = new Float64Array(rows);
  const decoded = new Float64Array(cols);
  for (let r = 0; r < rows; r++) {
    decodeRow(codes, r, decoded);
    for (let i = 0; i < cols; i++) {
      const k = r * cols + i;
      if (!deadOnly || codes.codes[k] === 0) bias[r] += factor[i] * (w[k] - decoded[i]);
    }
  }
  return bias;
}
