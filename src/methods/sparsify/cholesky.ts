import { addProduct } from './product.js';

/**
 * Upper-triangular R with R·Rᵀ = H + damp·I, H = (2/S)·Σ xᵀx of a layer's input.
 *
 * SparseGPT is usually written with U, the upper Cholesky factor of the inverse (H⁻¹ = UᵀU).
 * U = R⁻¹, and all it does can be said with R, so H is never inverted.
 */
export interface HessianFactor {
  cols: number;
  /** [cols, cols] row-major; below the diagonal it is undefined. */
  r: Float64Array;
  /** [cols] 1 where the channel is zero on all calibration data. */
  dead: Uint8Array;
  /** The fraction of mean(diag H) that was added to the diagonal. */
  damping: number;
}

const DAMPING = 0.01;
const ATTEMPTS = 4;

/**
 * Factors a float32 Hessian [cols, cols] in float64 (8·cols² bytes, cols³/3 multiply-adds).
 * Dead channels get 1 on the diagonal, then 1 % of the mean diagonal is added to it, ten times more
 * after each of up to three failures. Undefined when H is still not positive definite.
 */
export function factorHessian(hessian: Float32Array, cols: number): HessianFactor | undefined {
  const dead = new Uint8Array(cols);
  let trace = 0;
  for (let j = 0; j < cols; j++) {
    const diagonal = hessian[j * cols + j];
    if (diagonal === 0) dead[j] = 1;
    trace += dead[j] ? 1 : diagonal;
  }
  const r = new Float64Array(cols * cols);
  let damping = DAMPING;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++, damping *= 10) {
    r.set(hessian);
    for (let j = 0; j < cols; j++) r[j * cols + j] += dead[j] + (damping * trace) / cols;
    // Reversed end to end, the rows and columns of H are in opposite order; the lower factor of
    // that matrix, reversed again, is R.
    r.reverse();
    if (choleskyInPlace(r, cols)) return { cols, r: r.reverse(), dead, damping };
  }
  return undefined;
}

/**
 * diag(U) [cols] in float32, the divisor of the SparseGPT score W²/diag(U)². Infinite for dead
 * channels, whose weights SparseGPT counts as zero.
 */
export function inverseFactorDiagonal(factor: HessianFactor): Float32Array {
  const { cols, r, dead } = factor;
  return Float32Array.from(dead, (isDead, j) => (isDead ? Infinity : 1 / r[j * cols + j]));
}

/** Columns factored together, and the depth of the tiles their update is cut into. */
const PANEL = 48;
const DEPTH = 256;

/**
 * Replaces the lower triangle of the symmetric `a` [n, n] by its Cholesky factor L, a = L·Lᵀ, reading
 * no more than the lower triangle; above the diagonal `a` becomes undefined. Left-looking, panel by
 * panel. False when a pivot is not positive.
 */
function choleskyInPlace(a: Float64Array, n: number): boolean {
  const tile = new Float64Array(PANEL * DEPTH);
  for (let from = 0; from < n; from += PANEL) {
    const to = Math.min(from + PANEL, n);
    for (let k = 0; k < from; k += DEPTH) {
      const depth = Math.min(DEPTH, from - k);
      for (let j = from; j < to; j++) {
        for (let i = 0; i < depth; i++) tile[(j - from) * DEPTH + i] = -a[j * n + k + i];
      }
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
      solveRow(a, n, j, from, j);
      const pivot = squaredPivot(a, n, j, from);
      if (!(pivot > 0 && pivot < Infinity)) return false;
      a[j * n + j] = Math.sqrt(pivot);
    }
    const whole = to + 4 * Math.floor((n - to) / 4);
    for (let i = to; i < whole; i += 4) solveFourRows(a, n, i, from, to);
    for (let i = whole; i < n; i++) solveRow(a, n, i, from, to);
  }
  return true;
}

function squaredPivot(a: Float64Array, n: number, j: number, from: number): number {
  let pivot = a[j * n + j];
  for (let k = j * n + from; k < j * n + j; k++) pivot -= a[k] * a[k];
  return pivot;
}

/** Row i of the panel: solves x·L[from..to, from..to]ᵀ = a[i, from..to]. */
function solveRow(a: Float64Array, n: number, i: number, from: number, to: number): void {
  const row = i * n;
  for (let j = from; j < to; j++) {
    let sum = a[row + j];
    for (let k = from; k < j; k++) sum -= a[row + k] * a[j * n + k];
    a[row + j] = sum / a[j * n + j];
  }
}

/** `solveRow` for rows i to i + 3, whose sums do not wait for each other. */
function solveFourRows(a: Float64Array, n: number, i: number, from: number, to: number): void {
  const r0 = i * n;
  const r1 = r0 + n;
  const r2 = r1 + n;
  const r3 = r2 + n;
  for (let j = from; j < to; j++) {
    let s0 = a[r0 + j];
    let s1 = a[r1 + j];
    let s2 = a[r2 + j];
    let s3 = a[r3 + j];
    for (let k = from; k < j; k++) {
      const l = a[j * n + k];
      s0 -= a[r0 + k] * l;
      s1 -= a[r1 + k] * l;
      s2 -= a[r2 + k] * l;
      s3 -= a[r3 + k] * l;
    }
    const diagonal = a[j * n + j];
    a[r0 + j] = s0 / diagonal;
    a[r1 + j] = s1 / diagonal;
    a[r2 + j] = s2 / diagonal;
    a[r3 + j] = s3 / diagonal;
  }
}
