import { weightedSum } from './linear.js';

/** Directions closer than this are merged linearly: the arc is a line, and its formula divides by 0. */
const parallel = 0.9995;

/**
 * Spherical interpolation of two tensors as vectors: `sin((1-t)ω)/sin ω · a + sin(tω)/sin ω · b`, ω the
 * angle between them. Linear where they are nearly parallel, or one is zero.
 * Source: Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985.
 * @param a, b of one length; not changed
 * @param t 0 gives a, 1 gives b
 */
export function slerp(a: Float32Array, b: Float32Array, t: number): Float32Array {
  let dot = 0;
  let squareA = 0;
  let squareB = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    squareA += a[i] * a[i];
    squareB += b[i] * b[i];
  }
  const cosine = dot / Math.sqrt(squareA * squareB);
  // Turned around for NaN, which a zero vector gives.
  if (!(Math.abs(cosine) <= parallel)) return weightedSum([a, b], [1 - t, t]);
  const angle = Math.acos(cosine);
  const weights = [(1 - t) * angle, t * angle].map((part) => Math.sin(part) / Math.sin(angle));
  return weightedSum([a, b], weights);
}
