import { normals } from '../../sparsify/random.js';

export function randomArray(length: number, seed: number): Float64Array {
  const next = normals(seed);
  return Float64Array.from({ length }, next);
}

/** max |a - b| */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let k = 0; k < a.length; k++) {
    // Infinite for NaN too.
    const apart = Math.abs(a[k] - b[k]);
    most = apart >= 0 ? Math.max(most, apart) : Infinity;
  }
  return most;
}

/** A·B [rows, cols], the plain way. */
export function times(a: Float64Array, b: Float64Array, rows: number, cols: number) {
  const depth = a.length / rows;
  const out = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) {
    for (let t = 0; t < depth; t++) {
      for (let j = 0; j < cols; j++) out[i * cols + j] += a[i * depth + t] * b[t * cols + j];
    }
  }
  return out;
}

export function transposed(a: Float64Array, rows: number): Float64Array {
  const cols = a.length / rows;
  return a.map((_, k) => a[(k % rows) * cols + Math.floor(k / rows)]);
}

/** A⁻¹ by Gauss-Jordan elimination with pivoting. */
export function naiveInverse(a: Float64Array): Float64Array {
  const n = Math.sqrt(a.length);
  const rows = Array.from({ length: n }, (_, i) => [
    ...a.subarray(i * n, (i + 1) * n),
    ...Array.from({ length: n }, (_, j) => (i === j ? 1 : 0)),
  ]);
  for (let j = 0; j < n; j++) {
    let pivot = j;
    for (let i = j; i < n; i++) if (Math.abs(rows[i][j]) > Math.abs(rows[pivot][j])) pivot = i;
    [rows[j], rows[pivot]] = [rows[pivot], rows[j]];
    rows[j] = rows[j].map((x, _, row) => x / row[j]);
    for (let i = 0; i < n; i++) {
      const factor = rows[i][j];
      if (i !== j) rows[i] = rows[i].map((x, k) => x - factor * rows[j][k]);
    }
  }
  return Float64Array.from(rows.flatMap((row) => row.slice(n)));
}

/** A random covariance [n, n] of full rank. */
export function randomCovariance(n: number, seed: number): Float64Array {
  const factor = randomArray(n * (n + 2), seed);
  return times(factor, transposed(factor, n), n, n).map((x) => x / n);
}
