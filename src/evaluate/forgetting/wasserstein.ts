/**
 * 1-Wasserstein distance of two samples of a number, ∫|F_a - F_b|, in its unit: how far values have to
 * be moved, on average, to turn one sample into the other. For equal sizes the mean difference of the
 * sorted values.
 * @param a, b not empty, of any sizes
 * @returns NaN when there is a NaN in either
 */
export function wassersteinDistance(
  a: Float32Array | Float64Array,
  b: Float32Array | Float64Array,
): number {
  if (a.length === 0 || b.length === 0) throw new Error('no distance of an empty sample');
  const x = a.slice().sort();
  const y = b.slice().sort();
  // Each x has b.length parts and each y a.length, so that both samples have as many.
  let total = 0;
  let xLeft = y.length;
  let yLeft = x.length;
  for (let i = 0, j = 0; i < x.length; ) {
    const moved = Math.min(xLeft, yLeft);
    total += moved * Math.abs(x[i] - y[j]);
    xLeft -= moved;
    yLeft -= moved;
    if (xLeft === 0) {
      xLeft = y.length;
      i++;
    }
    if (yLeft === 0) {
      yLeft = x.length;
      j++;
    }
  }
  return total / (x.length * y.length);
}
