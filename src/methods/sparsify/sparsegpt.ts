/**
 * SparseGPT (arXiv 2301.00774): prunes a layer column by column and makes up for each pruned weight
 * with the weights to its right (optimal brain surgery).
 *
 * With H + damp·I = R·Rᵀ, R upper triangular, δ = W - Ŵ what was taken from each weight, the loss is
 * ‖δ·R‖². Column j of δ·R depends on δ up to column j only, so the best value of a kept weight, given
 * everything to its left, is
 *
 *   W'ⱼ = Wⱼ + (Σ_{i<j} δᵢ·Rᵢⱼ) / Rⱼⱼ
 *
 * which makes that column zero. These are the weights that the usual formulation reaches by
 * subtracting rows of U = R⁻¹ after every column, here without inverting, and rounded to float32 once.
 * The score of pruning weight j is W'ⱼ²·Rⱼⱼ² = W'ⱼ²/Uⱼⱼ².
 */

import { addProduct } from '../linalg/product.js';
import type { HessianFactor } from './cholesky.js';
import { inverseFactorDiagonal } from './cholesky.js';
import { RowMasker } from './masks.js';
import type { NmPattern, Pattern } from './pattern.js';
import { patternMisfit } from './pattern.js';
import { RankSelector } from './rank.js';

const { fround } = Math;

/** Columns of which an unstructured mask is chosen at a time. */
const BLOCK = 128;
/** Rows and depth of the tiles of δ in the product δ·R. */
const TILE_ROWS = 32;
const TILE_DEPTH = 256;

export interface SparseGptResult {
  /** [rows, cols] 1 = keep. */
  mask: Uint8Array;
  /** [rows, cols] updated weights, 0 where pruned. */
  weights: Float32Array;
}

/**
 * Prunes w [rows, cols] (not modified). Unstructured: in each block of 128 columns one threshold
 * for all rows, the score of rank trunc(count·sparsity), and every weight up to it is pruned, so
 * rows differ in sparsity; a block where that rank is 0 is not pruned. N:M: the n lowest of each
 * group, the lower column first. Dead channels score 0; a weight of one that is kept all the same,
 * because n others are pruned, stays as it is (the authors' code sets it to 0).
 */
export function sparseGpt(
  w: Float32Array,
  rows: number,
  factor: HessianFactor,
  pattern: Pattern,
): SparseGptResult {
  const { cols } = factor;
  if (w.length !== rows * cols) throw new Error(`${w.length} weights are not [${rows}, ${cols}]`);
  const misfit = patternMisfit(pattern, cols);
  if (misfit) throw new Error(misfit);
  const layer: Layer = {
    w,
    rows,
    factor,
    squares: inverseFactorDiagonal(factor).map((u) => u * u),
    mask: new Uint8Array(w.length),
    weights: new Float32Array(w.length),
  };
  const group = pattern.kind === 'nm' ? pattern.m : BLOCK;
  const width = group * Math.max(1, Math.floor(BLOCK / group));
  for (let from = 0; from < cols; from += width) {
    const block = openBlock(layer, from, Math.min(width, cols - from));
    if (pattern.kind === 'unstructured') {
      thresholdBlock(layer, block, pattern.sparsity);
      settleBlock(layer, block);
    } else {
      settleBlock(layer, block, pattern);
    }
  }
  return { mask: layer.mask, weights: layer.weights };
}

interface Layer extends SparseGptResult {
  w: Float32Array;
  rows: number;
  factor: HessianFactor;
  /** [cols] diag(U)². */
  squares: Float32Array;
}

/** Columns [from, from + width) of a layer whose earlier columns are done. */
interface Block {
  from: number;
  width: number;
  /** [rows, width] Σ δᵢ·Rᵢⱼ over the columns i that are done. */
  residual: Float64Array;
  /** [width, width] the diagonal block of R. */
  r: Float64Array;
}

function openBlock({ w, weights, rows, factor }: Layer, from: number, width: number): Block {
  const { cols, r } = factor;
  const residual = new Float64Array(rows * width);
  const panel = new Float64Array(width * TILE_DEPTH);
  const delta = new Float64Array(TILE_ROWS * TILE_DEPTH);
  for (let k = 0; k < from; k += TILE_DEPTH) {
    const depth = Math.min(TILE_DEPTH, from - k);
    for (let i = 0; i < depth; i++) {
      const row = (k + i) * cols + from;
      for (let j = 0; j < width; j++) panel[j * TILE_DEPTH + i] = r[row + j];
    }
    for (let top = 0; top < rows; top += TILE_ROWS) {
      const height = Math.min(TILE_ROWS, rows - top);
      for (let t = 0; t < height; t++) {
        const row = (top + t) * cols + k;
        for (let i = 0; i < depth; i++) {
          delta[t * TILE_DEPTH + i] = w[row + i] - weights[row + i];
        }
      }
      addProduct(
        { data: residual, start: top * width, stride: width },
        { data: delta, start: 0, stride: TILE_DEPTH },
        { data: panel, start: 0, stride: TILE_DEPTH },
        height,
        width,
        depth,
      );
    }
  }
  const diagonal = new Float64Array(width * width);
  for (let i = 0; i < width; i++) {
    const row = (from + i) * cols + from;
    diagonal.set(r.subarray(row, row + width), i * width);
  }
  return { from, width, residual, r: diagonal };
}

/** Chooses the mask of a block with one threshold, from the weights as they are at its start. */
function thresholdBlock(layer: Layer, block: Block, sparsity: number): void {
  const { from, width } = block;
  const { rows, factor, mask } = layer;
  const scores = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    scoreAhead(layer, block, row, 0, scores.subarray(row * width, (row + 1) * width));
  }
  const blockMask = new Uint8Array(scores.length);
  const rank = Math.trunc(scores.length * sparsity);
  new RankSelector().flagUpToRank(new Int32Array(scores.buffer), rank, blockMask);
  for (let row = 0; row < rows; row++) {
    const kept = blockMask.subarray(row * width, (row + 1) * width);
    mask.set(kept, row * factor.cols + from);
  }
}

/** Fixes the block's weights column by column; for N:M the mask too, group by group. */
function settleBlock(layer: Layer, block: Block, groups?: NmPattern): void {
  const { w, rows, factor, mask, weights } = layer;
  const { from, width, residual, r } = block;
  const scores = new Float32Array(groups ? groups.m : 0);
  const bits = new Int32Array(scores.buffer);
  const masker = groups && new RowMasker(groups);
  for (let row = 0; row < rows; row++) {
    const start = row * factor.cols + from;
    const sums = row * width;
    for (let j = 0; j < width; j++) {
      if (masker && j % scores.length === 0) {
        scoreAhead(layer, block, row, j, scores);
        masker.maskRow(bits, mask, start + j);
      }
      if (mask[start + j]) {
        weights[start + j] = w[start + j] + residual[sums + j] / r[j * width + j];
      }
      const delta = w[start + j] - weights[start + j];
      for (let i = j + 1; i < width; i++) residual[sums + i] += delta * r[j * width + i];
    }
  }
}

/**
 * Scores of columns [first, first + scores.length) of the block, with the weights W' they have when
 * everything to the left of `first` is done and nothing else is pruned.
 */
function scoreAhead(
  { w, factor, squares }: Layer,
  { from, width, residual, r }: Block,
  row: number,
  first: number,
  scores: Float32Array,
): void {
  const count = scores.length;
  const sums = residual.slice(row * width + first, row * width + first + count);
  for (let j = 0; j < count; j++) {
    const column = from + first + j;
    const diagonal = (first + j) * (width + 1);
    const correction = sums[j] / r[diagonal];
    for (let i = 1; i < count - j; i++) sums[j + i] -= correction * r[diagonal + i];
    const value = fround(w[row * factor.cols + column] + correction);
    scores[j] = fround(value * value) / squares[column];
  }
}
