import { product } from './dtypes.js';

/**
 * Bilinear resize of one axis of a C-order array, with half-pixel centres; when shrinking, the triangle
 * widens with the factor so that no pixel is skipped (as Pillow's BILINEAR, without its rounding to bytes).
 */
export function resizeAxis(
  values: ArrayLike<number>,
  dims: readonly number[],
  axis: number,
  size: number,
): Float64Array {
  const from = dims[axis];
  const outer = product(dims.slice(0, axis));
  const inner = product(dims.slice(axis + 1));
  const out = new Float64Array(outer * size * inner);
  const factor = from / size;
  const radius = Math.max(factor, 1);
  for (let to = 0; to < size; to++) {
    const centre = (to + 0.5) * factor;
    const first = Math.max(Math.floor(centre - radius + 0.5), 0);
    const last = Math.min(Math.floor(centre + radius + 0.5), from) - 1;
    const weights = Array.from({ length: last - first + 1 }, (_, i) =>
      Math.max(0, 1 - Math.abs(first + i + 0.5 - centre) / radius),
    );
    const total = weights.reduce((a, b) => a + b, 0);
    for (let o = 0; o < outer; o++)
      for (let i = first; i <= last; i++) {
        const weight = weights[i - first] / total;
        const source = (o * from + i) * inner;
        const target = (o * size + to) * inner;
        for (let j = 0; j < inner; j++) out[target + j] += weight * values[source + j];
      }
  }
  return out;
}
