import {
  allocateCodes,
  type Granularity,
  groupSize,
  type LayerCodes,
  type LayerWeights,
} from './codes.js';

/** Coarsest first: it stores the fewest scales. */
const GRANULARITIES: readonly Granularity[] = [
  'tensor',
  'channel',
  { group: 128 },
  { group: 64 },
  { group: 32 },
];

/**
 * Codes of weights that are ternary already: in every group all are -a, 0 or a, for the same float32 a.
 * scale·code is each weight, bit for bit but for -0, which becomes 0. Undefined unless one of the
 * granularities fits; the first that does is taken.
 */
export function detectTernary(
  layer: LayerWeights,
  granularities: readonly Granularity[] = GRANULARITIES,
): LayerCodes | undefined {
  for (const granularity of granularities) {
    const codes = exactCodes(layer, granularity);
    if (codes) return codes;
  }
  return undefined;
}

function exactCodes(layer: LayerWeights, granularity: Granularity): LayerCodes | undefined {
  const { w, rows, cols } = layer;
  const group = granularity === 'tensor' ? w.length : groupSize(granularity, cols);
  // Before anything is allocated: most layers are refused at their second weight.
  const step = granularity === 'tensor' ? w.length : cols;
  for (let start = 0; start < w.length; start += step) {
    for (let left = start; left < start + step; left += group) {
      if (commonMagnitude(w, left, Math.min(left + group, start + step)) === undefined) return;
    }
  }
  const codes = allocateCodes(layer, granularity);
  const tensorScale = codes.shared ? commonMagnitude(w, 0, w.length) : undefined;
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < codes.groups; g++) {
      const left = r * cols + g * codes.group;
      const right = Math.min(left + codes.group, (r + 1) * cols);
      codes.scales[r * codes.groups + g] = tensorScale ?? commonMagnitude(w, left, right) ?? 0;
    }
  }
  for (let k = 0; k < w.length; k++) codes.codes[k] = Math.sign(w[k]);
  return codes;
}

/** The one magnitude of w[from, to) besides 0, 0 when all are 0; undefined when there are others. */
function commonMagnitude(w: Float32Array, from: number, to: number): number | undefined {
  let common = 0;
  for (let k = from; k < to; k++) {
    const magnitude = Math.abs(w[k]);
    if (magnitude === 0 || magnitude === common) continue;
    if (common !== 0 || !(magnitude < Infinity)) return undefined;
    common = magnitude;
  }
  return common;
}
