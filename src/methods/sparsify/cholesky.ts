import { upperCholeskyInPlace } from '../linalg/cholesky.js';

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
    if (upperCholeskyInPlace(r, cols)) return { cols, r, dead, damping };
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
