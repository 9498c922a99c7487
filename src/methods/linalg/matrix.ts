import { addProduct, type Rows } from './product.js';

/** Columns and depth of the tiles of B in A·Bᵀ: what stays in the second-level cache. */
const TILE_COLS = 48;
const TILE_DEPTH = 256;
/** Rows of a symmetric product that share the columns they compute. */
const BAND = 64;

/** A·Bᵀ [rows, cols] of `a` [rows, depth] and `b` [cols, depth], row-major. */
export function timesTransposed(
  a: Float64Array,
  b: Float64Array,
  rows: number,
  cols: number,
  depth: number,
): Float64Array {
  const out = new Float64Array(rows * cols);
  addTimesTransposed(
    { data: out, start: 0, stride: cols },
    { data: a, start: 0, stride: depth },
    { data: b, start: 0, stride: depth },
    rows,
    cols,
    depth,
  );
  return out;
}

/** `addProduct` of any size, cut into tiles. */
export function addTimesTransposed(
  out: Rows,
  a: Rows,
  b: Rows,
  rows: number,
  cols: number,
  depth: number,
): void {
  for (let k = 0; k < depth; k += TILE_DEPTH) {
    for (let j = 0; j < cols; j += TILE_COLS) {
      addProduct(
        { ...out, start: out.start + j },
        { ...a, start: a.start + k },
        { ...b, start: b.start + j * b.stride + k },
        rows,
        Math.min(TILE_COLS, cols - j),
        Math.min(TILE_DEPTH, depth - k),
      );
    }
  }
}

/**
 * A·Bᵀ [n, n] of `a` and `b` [n, depth], known to be symmetric: only the lower half is computed, and
 * copied to the upper one.
 */
export function symmetricProduct(
  a: Float64Array,
  b: Float64Array,
  n: number,
  depth: number,
): Float64Array {
  const out = new Float64Array(n * n);
  for (let k = 0; k < depth; k += TILE_DEPTH) {
    for (let j = 0; j < n; j += BAND) {
      addProduct(
        { data: out, start: j * n + j, stride: n },
        { data: a, start: j * depth + k, stride: depth },
        { data: b, start: j * depth + k, stride: depth },
        n - j,
        Math.min(BAND, n - j),
        Math.min(TILE_DEPTH, depth - k),
      );
    }
  }
  mirrorLower(out, n);
  return out;
}

/** Copies the lower triangle of `a` [n, n] to the upper one. */
export function mirrorLower(a: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) a[j * n + i] = a[i * n + j];
  }
}

/** Aᵀ [cols, rows] of `a` [rows, cols]. */
export function transpose(a: Float64Array, rows: number, cols: number): Float64Array {
  const out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) out[j * rows + i] = a[i * cols + j];
  }
  return out;
}

export function identity(n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) out[i * (n + 1)] = 1;
  return out;
}

/** a[rows, cols] for the given rows and columns of `a`, which is `width` wide. */
export function submatrix(
  a: Float64Array,
  width: number,
  rows: ArrayLike<number>,
  cols: ArrayLike<number>,
): Float64Array {
  const out = new Float64Array(rows.length * cols.length);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] * width;
    for (let j = 0; j < cols.length; j++) out[i * cols.length + j] = a[row + cols[j]];
  }
  return out;
}
