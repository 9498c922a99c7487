/**
 * The quadratic form that output errors are measured with: E|δ·x|² = δ·H·δᵀ.
 *
 *   K      inputs
 *   C      E[xxᵀ]
 *   μ      E[x]
 *   H      C - μμᵀ when a bias takes up the mean of the error, else C; damped
 *   R      upper triangular, H = R·Rᵀ
 */
import { dataError } from '../../../errors.js';
import { upperCholeskyInPlace } from '../../linalg/cholesky.js';

/** What is known of a layer's input x. */
export interface InputMoments {
  /** Vectors x that the averages are over. */
  tokens: number;
  /** μ [K] */
  mean: Float64Array;
  /** [K] E[x²] */
  squares: Float64Array;
  /** C [K, K] */
  second?: Float64Array | Float32Array;
}

export interface Hessian {
  cols: number;
  /** [K, K] symmetric; undefined when only the diagonal can be relied on. */
  full?: Float64Array;
  /** [K] its diagonal, all > 0. */
  diagonal: Float64Array;
  /** Why there is only a diagonal. */
  reason?: 'not gathered' | 'few tokens' | 'many inputs';
}

export interface HessianOptions {
  /** A bias will match the mean of the output. */
  centred: boolean;
  /** Of the mean diagonal, added to the diagonal. */
  damping?: number;
  /** Inputs beyond which only the diagonal is used. */
  maxCols?: number;
  /** Workers can read the matrix when it is SharedArrayBuffer. */
  Memory?: ArrayBufferConstructor | SharedArrayBufferConstructor;
}

/** Tokens per input below which the full matrix would be fitted to noise. */
const TOKENS_PER_INPUT = 2;

/**
 * H of a layer. Inputs that never vary have only the damping: their weights are free, and stay near
 * their own fit. Where no input varies H = I.
 *
 * Throws a data error that names the layer when a moment is NaN or infinite.
 */
export function prepareHessian(
  name: string,
  { tokens, mean, squares, second }: InputMoments,
  { centred, damping = 0.01, maxCols = 4096, Memory = ArrayBuffer }: HessianOptions,
): Hessian {
  const cols = mean.length;
  for (const moments of [mean, squares, second]) checkFinite(name, moments);
  const reason = !second
    ? 'not gathered'
    : tokens < TOKENS_PER_INPUT * cols
      ? 'few tokens'
      : cols > maxCols
        ? 'many inputs'
        : undefined;
  const diagonal = new Float64Array(cols);
  let trace = 0;
  for (let i = 0; i < cols; i++) {
    const square = second && !reason ? second[i * (cols + 1)] : squares[i];
    // Rounding can leave less than nothing of a variance.
    diagonal[i] = Math.max(0, centred ? square - mean[i] * mean[i] : square);
    trace += diagonal[i];
  }
  const added = trace > 0 ? (damping * trace) / cols : 1;
  for (let i = 0; i < cols; i++) diagonal[i] += added;
  if (!second || reason) return { cols, diagonal, reason };
  const full = new Float64Array(new Memory(8 * second.length));
  full.set(second);
  for (let i = 0; i < cols; i++) {
    if (centred) for (let j = 0; j < cols; j++) full[i * cols + j] -= mean[i] * mean[j];
    full[i * (cols + 1)] = diagonal[i];
  }
  return { cols, full, diagonal };
}

const ATTEMPTS = 3;

/**
 * R [K, K] with Rᵀ below the diagonal, so that rows and columns of R are both contiguous (8·K² bytes,
 * K³/3 multiply-adds). Where rounding has left H indefinite, a tenth of its mean diagonal is added, then
 * all of it; undefined when that does not help, or when there is only a diagonal.
 */
export function factorHessian(
  { cols, full }: Hessian,
  { Memory = ArrayBuffer }: Pick<HessianOptions, 'Memory'> = {},
): Float64Array | undefined {
  if (!full) return undefined;
  let trace = 0;
  for (let i = 0; i < cols; i++) trace += full[i * (cols + 1)];
  let added = 0;
  const r = new Float64Array(new Memory(8 * full.length));
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    r.set(full);
    for (let i = 0; i < cols; i++) r[i * (cols + 1)] += (added * trace) / cols;
    if (upperCholeskyInPlace(r, cols)) {
      mirrorUpper(r, cols);
      return r;
    }
    added = added > 0 ? 10 * added : 0.1;
  }
  return undefined;
}

/** Copies the upper triangle of `a` [n, n] to the lower one. */
function mirrorUpper(a: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) a[i * n + j] = a[j * n + i];
  }
}

function checkFinite(name: string, moments?: Float64Array | Float32Array): void {
  const at = moments ? moments.findIndex((x) => !Number.isFinite(x)) : -1;
  if (at < 0) return;
  throw dataError('the statistics of a layer are not finite numbers', {
    where: name,
    got: String(moments?.[at]),
    hint: 'Look for NaN or huge values in the calibration data, or exclude this layer.',
  });
}
