/** θ - θ₀, rounded to float32; 0 where both are the same infinity. */
export function taskVector(tuned: Float32Array, base: Float32Array): Float32Array {
  const vector = new Float32Array(base.length);
  for (let i = 0; i < vector.length; i++) vector[i] = tuned[i] === base[i] ? 0 : tuned[i] - base[i];
  return vector;
}

/**
 * Task arithmetic: θ₀ + scale Σ τ. Source: Ilharco et al., Editing Models with Task Arithmetic,
 * arXiv 2212.04089.
 */
export function addTaskVectors(
  base: Float32Array,
  vectors: readonly Float32Array[],
  scale: number,
): Float32Array {
  const merged = new Float32Array(base.length);
  for (let i = 0; i < merged.length; i++) {
    let sum = 0;
    for (const vector of vectors) sum += vector[i];
    // Where nothing moved the base stays, be it infinite.
    merged[i] = sum === 0 ? base[i] : base[i] + scale * sum;
  }
  return merged;
}

/**
 * TIES of trimmed task vectors: the sign of their sum is elected (0 counts as +), and θ₀ moves by
 * scale times the mean of the entries that have it. Source: Yadav et al., TIES-Merging, arXiv 2306.01708.
 */
export function addElected(
  base: Float32Array,
  vectors: readonly Float32Array[],
  scale: number,
): Float32Array {
  const merged = new Float32Array(base.length);
  for (let i = 0; i < merged.length; i++) {
    let sum = 0;
    for (const vector of vectors) sum += vector[i];
    const positive = sum >= 0;
    let agreeing = 0;
    let count = 0;
    for (const vector of vectors) {
      const entry = vector[i];
      if (positive ? entry > 0 : entry < 0) {
        agreeing += entry;
        count++;
      }
    }
    merged[i] = count === 0 ? base[i] : base[i] + (scale * agreeing) / count;
  }
  return merged;
}
