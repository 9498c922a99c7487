/**
 * Σ weights[i] · tensors[i], computed in float64 and rounded once. Where all tensors hold the same value
 * and the weights sum to 1, that value comes out, whatever it is.
 * @param tensors of one length; not changed
 */
export function weightedSum(
  tensors: readonly Float32Array[],
  weights: readonly number[],
): Float32Array {
  if (tensors.length === 2) return weightedPair(tensors[0], tensors[1], weights[0], weights[1]);
  const merged = new Float32Array(tensors[0].length);
  const isMean = sumsToOne(weights);
  for (let i = 0; i < merged.length; i++) {
    const first = tensors[0][i];
    let sum = 0;
    let same = isMean;
    for (let m = 0; m < tensors.length; m++) {
      const value = tensors[m][i];
      if (weights[m] !== 0) sum += weights[m] * value;
      if (value !== first) same = false;
    }
    merged[i] = same ? first : sum;
  }
  return merged;
}

function weightedPair(a: Float32Array, b: Float32Array, u: number, v: number): Float32Array {
  if (v === 0 && u === 1) return a.slice();
  if (u === 0 && v === 1) return b.slice();
  const merged = new Float32Array(a.length);
  const isMean = sumsToOne([u, v]);
  for (let i = 0; i < merged.length; i++) {
    const x = a[i];
    const y = b[i];
    merged[i] = isMean && x === y ? x : u * x + v * y;
  }
  return merged;
}

const sumsToOne = (weights: readonly number[]): boolean =>
  Math.abs(weights.reduce((a, b) => a + b, 0) - 1) < 1e-12;
