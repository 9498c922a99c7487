import { differenceRow, type LayerCodes, type LayerWeights } from './codes.js';

/** Σ(w - ŵ)² / Σw²; 0 when both are 0. */
export function relativeWeightError(layer: LayerWeights, codes: LayerCodes): number {
  const lost = new Float64Array(layer.cols);
  let error = 0;
  for (let r = 0; r < layer.rows; r++) {
    differenceRow(layer, codes, r, lost);
    for (let i = 0; i < lost.length; i++) error += lost[i] * lost[i];
  }
  let power = 0;
  for (let k = 0; k < layer.w.length; k++) power += layer.w[k] * layer.w[k];
  return error === 0 ? 0 : error / power;
}

/** Fraction of codes that are 0; 0 of none. */
export function zeroFraction({ codes }: LayerCodes): number {
  let zeros = 0;
  for (let k = 0; k < codes.length; k++) if (codes[k] === 0) zeros++;
  return zeros / Math.max(1, codes.length);
}
