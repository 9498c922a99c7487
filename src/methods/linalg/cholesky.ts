import { identity, mirrorLower } from './matrix.js';
import { addProduct } from './product.js';

/** Columns factored together, and the depth of the tiles their update is cut into. */
const PANEL = 48;
const DEPTH = 256;

/**
 * Replaces the lower triangle of the symmetric `a` [n, n] by its Cholesky factor L, a = L·Lᵀ, reading
 * no more than the lower triangle; above the diagonal `a` becomes undefined. Left-looking, panel by
 * panel. False when a pivot is not positive.
 */
export function choleskyInPlace(a: Float64Array, n: number): boolean {
  const tile = new Float64Array(PANEL * DEPTH);
  for (let from = 0; from < n; from += PANEL) {
    const to = Math.min(from + PANEL, n);
    for (let k = 0; k < from; k += DEPTH) {
      const depth = Math.min(DEPTH, from - k);
      negateTile(tile, a, n, from, to, k, depth);
      addProduct(
        { data: a, start: from * n + from, stride: n },
        { data: a, start: from * n + k, stride: n },
        { data: tile, start: 0, stride: DEPTH },
        n - from,
        to - from,
        depth,
      );
    }
    for (let j = from; j < to; j++) {
      solveRow(a, a, n, j, from, j);
      const pivot = squaredPivot(a, n, j, from);
      if (!(pivot > 0 && pivot < Infinity)) return false;
      a[j * n + j] = Math.sqrt(pivot);
    }
    solveRows(a, a, n, to, n, from, to);
  }
  return true;
}

/**
 * Replaces the upper triangle of the symmetric `a` [n, n] by R, a = R·Rᵀ; below the diagonal `a`
 * becomes undefined. False, and `a` undefined, when it is not positive definite.
 */
export function upperCholeskyInPlace(a: Float64Array, n: number): boolean {
  // Reversed end to end, the rows and columns are in opposite order; the lower factor of that
  // matrix, reversed again, is R.
  const positive = choleskyInPlace(a.reverse(), n);
  a.reverse();
  return positive;
}

/**
 * Replaces every row x of `b` [rows, n] by x·A⁻¹, given the lower factor L [n, n] of A = L·Lᵀ, of
 * which only the lower triangle is read.
 */
export function solveInPlace(l: Float64Array, n: number, b: Float64Array, rows: number): void {
  substitute(l, n, b, rows);
  // x·L = b is the same forward substitution once everything is in opposite order.
  const reversed = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) reversed[(n - 1 - j) * n + n - 1 - i] = l[i * n + j];
  }
  for (let i = 0; i < rows; i++) b.subarray(i * n, (i + 1) * n).reverse();
  substitute(reversed, n, b, rows);
  for (let i = 0; i < rows; i++) b.subarray(i * n, (i + 1) * n).reverse();
}

/** A⁻¹ [n, n], given the lower factor L of A = L·Lᵀ. Exactly symmetric. */
export function inverse(l: Float64Array, n: number): Float64Array {
  const inverted = identity(n);
  solveInPlace(l, n, inverted, n);
  mirrorLower(inverted, n);
  return inverted;
}

/**
 * (largest pivot / smallest pivot) of A = L·Lᵀ, pivots being the squares of L's diagonal: a lower
 * bound of A's condition number that is usually within a small factor of it.
 */
export function conditionEstimate(l: Float64Array, n: number): number {
  let least = Infinity;
  let most = 0;
  for (let i = 0; i < n; i++) {
    const pivot = l[i * (n + 1)] ** 2;
    least = Math.min(least, pivot);
    most = Math.max(most, pivot);
  }
  return most / least;
}

/** Replaces every row x of `b` [rows, n] by the solution z of z·Lᵀ = x. */
function substitute(l: Float64Array, n: number, b: Float64Array, rows: number): void {
  const tile = new Float64Array(PANEL * DEPTH);
  for (let from = 0; from < n; from += PANEL) {
    const to = Math.min(from + PANEL, n);
    for (let k = 0; k < from; k += DEPTH) {
      const depth = Math.min(DEPTH, from - k);
      negateTile(tile, l, n, from, to, k, depth);
      addProduct(
        { data: b, start: from, stride: n },
        { data: b, start: k, stride: n },
        { data: tile, start: 0, stride: DEPTH },
        rows,
        to - from,
        depth,
      );
    }
    solveRows(b, l, n, 0, rows, from, to);
  }
}

/** tile = -a[from..to, k..k + depth]. */
function negateTile(
  tile: Float64Array,
  a: Float64Array,
  n: number,
  from: number,
  to: number,
  k: number,
  depth: number,
): void {
  for (let j = from; j < to; j++) {
    for (let i = 0; i < depth; i++) tile[(j - from) * DEPTH + i] = -a[j * n + k + i];
  }
}

function squaredPivot(a: Float64Array, n: number, j: number, from: number): number {
  let pivot = a[j * n + j];
  for (let k = j * n + from; k < j * n + j; k++) pivot -= a[k] * a[k];
  return pivot;
}

/** Rows top to bottom of `b`: solves x·L[from..to, from..to]ᵀ = b[i, from..to]. */
function solveRows(
  b: Float64Array,
  l: Float64Array,
  n: number,
  top: number,
  bottom: number,
  from: number,
  to: number,
): void {
  const whole = top + 4 * Math.floor((bottom - top) / 4);
  for (let i = top; i < whole; i += 4) solveFourRows(b, l, n, i, from, to);
  for (let i = whole; i < bottom; i++) solveRow(b, l, n, i, from, to);
}

function solveRow(
  b: Float64Array,
  l: Float64Array,
  n: number,
  i: number,
  from: number,
  to: number,
): void {
  const row = i * n;
  for (let j = from; j < to; j++) {
    let sum = b[row + j];
    for (let k = from; k < j; k++) sum -= b[row + k] * l[j * n + k];
    b[row + j] = sum / l[j * n + j];
  }
}

/** `solveRow` for rows i to i + 3, whose sums do not wait for each other. */
function solveFourRows(
  b: Float64Array,
  l: Float64Array,
  n: number,
  i: number,
  from: number,
  to: number,
): void {
  const r0 = i * n;
  const r1 = r0 + n;
  const r2 = r1 + n;
  const r3 = r2 + n;
  for (let j = from; j < to; j++) {
    let s0 = b[r0 + j];
    let s1 = b[r1 + j];
    let s2 = b[r2 + j];
    let s3 = b[r3 + j];
    for (let k = from; k < j; k++) {
      const factor = l[j * n + k];
      s0 -= b[r0 + k] * factor;
      s1 -= b[r1 + k] * factor;
      s2 -= b[r2 + k] * factor;
      s3 -= b[r3 + k] * factor;
    }
    const diagonal = l[j * n + j];
    b[r0 + j] = s0 / diagonal;
    b[r1 + j] = s1 / diagonal;
    b[r2 + j] = s2 / diagonal;
    b[r3 + j] = s3 / diagonal;
  }
}
