/**
 * UDFC (Bai et al., ICCV 2023, arXiv 2308.07209): removed and rounded channels are made up for in the
 * next layer, by a mixing matrix in closed form. The paper's formulas are reconstructed here.
 *
 *   W, W̃     [N, D] filters, and the same after rounding
 *   a, b      [N] u = a·(W∗x) + b, the pre-activation
 *   G, G̃     diag(a)·W, diag(a)·W̃
 *   K, S, S0  see mixing.ts
 *   τ         mean of ‖g̃ᵢ‖² over K: makes α₂ free of scale
 *
 *   S = argmin ‖G - S·G̃_K‖² + α₁·‖b - S·b_K‖² + α₂·τ·‖S - S0‖²
 *     = (G·G̃_Kᵀ + α₁·b·b_Kᵀ + α₂·τ·S0)·(G̃_K·G̃_Kᵀ + α₁·b_K·b_Kᵀ + α₂·τ·I)⁻¹
 */
import { choleskyInPlace, conditionEstimate, solveInPlace } from '../../linalg/cholesky.js';
import { submatrix, symmetricProduct, timesTransposed } from '../../linalg/matrix.js';
import type { Affine } from './batch-norm.js';
import { dropMatrix, keepBlocks, range } from './mixing.js';

export interface UdfcLayer {
  /** W [N, D] */
  filters: Float64Array;
  /** W̃ [N, D]; absent when nothing is rounded. */
  rounded?: Float64Array;
  /** a and b, [N] each. */
  affine: Affine;
  /** K */
  kept: Uint32Array;
  /** Groups of the convolution: filters of different ones see different inputs. */
  groups?: number;
  /** Groups of the consumer: S is block diagonal, and each block must keep as many channels. */
  blocks?: number;
}

export interface UdfcOptions {
  /** α₁, how much the shifts b count. */
  alpha1?: number;
  /** α₂, how much S is pulled to its prior. */
  alpha2?: number;
  /** Whether α₂ is multiplied by τ. */
  relativeRidge?: boolean;
  /** S0 as it is in mixing.ts, or 0. */
  prior?: 'identity' | 'zero';
}

export interface Mixing {
  /** S [N, n] */
  s: Float64Array;
  /** What was added to the diagonal in the end; Infinity when S is its prior because all failed. */
  ridge: number;
  /** (largest / smallest pivot) of the factored matrix. */
  condition: number;
}

export const ALPHA1 = 0.01;
export const ALPHA2 = 0.008;

/** The closed-form S of a layer. Exactly S0 in the rows of K when nothing is rounded. */
export function udfcMixing(layer: UdfcLayer, options: UdfcOptions = {}): Mixing {
  const { alpha1 = ALPHA1, alpha2 = ALPHA2, relativeRidge = true, prior = 'identity' } = options;
  const { filters, rounded = filters, affine, kept, groups = 1, blocks = 1 } = layer;
  const { scale: a, shift: b } = affine;
  const channels = a.length;
  const depth = filters.length / channels;
  const all = range(channels);
  const basis = rowsOf(rounded, depth, kept);

  const cross = timesTransposed(filters, basis, channels, kept.length, depth);
  scaleBoth(cross, all, kept, a);
  keepBlocks(cross, all, kept, channels, groups);
  const gram =
    layer.rounded === undefined
      ? submatrix(cross, kept.length, kept, range(kept.length))
      : symmetricProduct(basis, basis, kept.length, depth);
  if (layer.rounded !== undefined) {
    scaleBoth(gram, kept, kept, a);
    keepBlocks(gram, kept, kept, channels, groups);
  }
  let trace = 0;
  for (let m = 0; m < kept.length; m++) trace += gram[m * (kept.length + 1)];
  const tau = relativeRidge ? trace / kept.length : 1;
  addShifts(cross, all, kept, b, alpha1);
  addShifts(gram, kept, kept, b, alpha1);
  keepBlocks(cross, all, kept, channels, blocks);
  keepBlocks(gram, kept, kept, channels, blocks);

  const exact = layer.rounded === undefined && prior === 'identity';
  const s0 = prior === 'identity' ? dropMatrix(kept, channels) : new Float64Array(cross.length);
  return solveMixing(
    { cross, gram, s0, kept, keepUnitRows: exact },
    alpha2 * tau,
    trace / kept.length,
  );
}

export interface MixingSystem {
  /** [N, n] what S is to reproduce, against the kept channels. */
  cross: Float64Array;
  /** [n, n] the kept channels against themselves; symmetric. */
  gram: Float64Array;
  /** S0 [N, n] */
  s0: Float64Array;
  kept: Uint32Array;
  /** Whether the rows of K are known to be those of S0, so that they need not be solved. */
  keepUnitRows: boolean;
}

/** Ridges tried, each ten times the one before, and the first where it would be zero. */
const ATTEMPTS = 7;
const LEAST_RIDGE = 1e-8;
/** Beyond it no digit of S is right. */
const WORST_CONDITION = 1e15;

/**
 * S = (cross + ridge·S0)·(gram + ridge·I)⁻¹. Where that is not positive definite the ridge is
 * multiplied by ten, up to six times (zero first becomes 1e-8 of `size`, the mean diagonal); if that
 * does not help either, S is S0.
 */
export function solveMixing(system: MixingSystem, ridge: number, size: number): Mixing {
  const { cross, gram, s0, kept, keepUnitRows } = system;
  const n = kept.length;
  const channels = cross.length / n;
  let added = ridge;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const factor = gram.slice();
    for (let m = 0; m < n; m++) factor[m * (n + 1)] += added;
    const positive = choleskyInPlace(factor, n);
    const condition = positive ? conditionEstimate(factor, n) : Infinity;
    if (condition < WORST_CONDITION) {
      const solved = keepUnitRows ? without(kept, channels) : range(channels);
      const right = new Float64Array(solved.length * n);
      for (let k = 0; k < solved.length; k++) {
        const row = solved[k] * n;
        for (let m = 0; m < n; m++) right[k * n + m] = cross[row + m] + added * s0[row + m];
      }
      solveInPlace(factor, n, right, solved.length);
      const s = s0.slice();
      for (let k = 0; k < solved.length; k++) {
        s.set(right.subarray(k * n, (k + 1) * n), solved[k] * n);
      }
      return { s, ridge: added, condition };
    }
    added = added > 0 ? 10 * added : LEAST_RIDGE * size;
  }
  return { s: s0, ridge: Infinity, condition: Infinity };
}

/** The channels that are not in `kept`. */
function without(kept: Uint32Array, channels: number): Uint32Array {
  const isKept = new Set(kept);
  return range(channels).filter((channel) => !isKept.has(channel));
}

function rowsOf(w: Float64Array, cols: number, rows: Uint32Array): Float64Array {
  const out = new Float64Array(rows.length * cols);
  rows.forEach((row, i) => {
    out.set(w.subarray(row * cols, (row + 1) * cols), i * cols);
  });
  return out;
}

/** m[i, j] *= a[rows[i]]·a[cols[j]] */
function scaleBoth(m: Float64Array, rows: Uint32Array, cols: Uint32Array, a: Float64Array): void {
  let k = 0;
  for (const row of rows) {
    for (const col of cols) m[k++] *= a[row] * a[col];
  }
}

/** m[i, j] += α₁·b[rows[i]]·b[cols[j]] */
function addShifts(
  m: Float64Array,
  rows: Uint32Array,
  cols: Uint32Array,
  b: Float64Array,
  alpha1: number,
): void {
  let k = 0;
  for (const row of rows) {
    for (const col of cols) m[k++] += alpha1 * b[row] * b[col];
  }
}

/**
 * Rounding alone, without mixing: the scale s' [N] of every rounded channel that is nearest the
 * original, s'ᵢ = (⟨gᵢ, g̃ᵢ⟩ + α₁·bᵢ² + α₂·τ) / (‖g̃ᵢ‖² + α₁·bᵢ² + α₂·τ), τ over all channels. 1 where
 * that is 0/0.
 */
export function roundingScales(
  filters: Float64Array,
  rounded: Float64Array,
  { scale: a, shift: b }: Affine,
  { alpha1 = ALPHA1, alpha2 = ALPHA2 }: Pick<UdfcOptions, 'alpha1' | 'alpha2'> = {},
): Float64Array {
  const channels = a.length;
  const depth = filters.length / channels;
  const dots = new Float64Array(channels);
  const squares = new Float64Array(channels);
  let tau = 0;
  for (let i = 0; i < channels; i++) {
    for (let k = i * depth; k < (i + 1) * depth; k++) {
      dots[i] += filters[k] * rounded[k];
      squares[i] += rounded[k] * rounded[k];
    }
    dots[i] *= a[i] * a[i];
    squares[i] *= a[i] * a[i];
    tau += squares[i] / channels;
  }
  return dots.map((dot, i) => {
    const pull = alpha1 * b[i] * b[i] + alpha2 * tau;
    const below = squares[i] + pull;
    return below > 0 ? (dot + pull) / below : 1;
  });
}
