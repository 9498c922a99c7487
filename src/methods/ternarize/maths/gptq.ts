/**
 * GPTQ (arXiv 2210.17323) for few levels: a layer is coded column by column, and weights to the right
 * make up for what is lost.
 *
 *   W, Ŵ   [rows, K] weights and coded ones, δ = W - Ŵ
 *   H      quadratic form of the error, [K, K]
 *   R      upper triangular, H = R·Rᵀ; the loss is ‖δ·R‖²
 *   W'     W with what makes up for the columns before: W'ⱼ = Wⱼ + (Σ_{i<j} δᵢ·Rᵢⱼ)/Rⱼⱼ
 *
 * Column j of δ·R depends on δ up to j only, and is 0 at W'ⱼ, so W'ⱼ is the value to code. These are the
 * weights that the usual formulation reaches by subtracting rows of U = R⁻¹, here without inverting.
 */
import { addTimesTransposed } from '../../linalg/matrix.js';
import type { LayerCodes, LayerWeights, RowRange } from './codes.js';
import { allRows, checkRows } from './codes.js';
import { nearestCode, type Quantizer } from './quantizer.js';
import { setLevels } from './rows.js';

/** Rows that are coded together, and columns that are settled between two products. */
const BAND = 32;
const BLOCK = 128;

/**
 * Codes rows [from, to) into `codes`, columns in their own order. At the first column of a group its
 * levels are fitted to W', as it is when nothing of the group is coded; with one scale for the tensor
 * the levels that `codes` has are used (`fitRows` sets them). Then each W' gets the nearest code.
 *
 * @param r R [K, K] from `factorHessian`
 * Throws a model error for a weight that is NaN or infinite.
 */
export function gptqRows(
  layer: LayerWeights,
  codes: LayerCodes,
  quantizer: Quantizer,
  r: Float64Array,
  { from, to }: RowRange = allRows(layer),
): void {
  if (quantizer.pattern) throw new Error('GPTQ chooses codes one by one, without a pattern');
  checkRows(layer, { from, to });
  for (let top = from; top < to; top += BAND) {
    codeBand(layer, codes, quantizer, r, top, Math.min(BAND, to - top));
  }
}

function codeBand(
  layer: LayerWeights,
  codes: LayerCodes,
  quantizer: Quantizer,
  r: Float64Array,
  top: number,
  height: number,
): void {
  const { cols, group } = codes;
  // [height, K] δ of settled columns.
  const delta = new Float64Array(height * cols);
  for (let left = 0; left < cols; left += group) {
    const width = Math.min(group, cols - left);
    // Σ δᵢ·Rᵢⱼ over settled columns, for those of the group.
    const panel: Panel = { sums: new Float64Array(height * width), left, width };
    addSettled(panel, delta, r, height, cols, 0, left, 0);
    if (!codes.shared) fitBand(layer, codes, quantizer, r, panel, top, height);
    for (let start = 0; start < width; start += BLOCK) {
      // The rest of the group, once per block: what the block before it has settled.
      if (start > 0) {
        addSettled(panel, delta, r, height, cols, left + start - BLOCK, BLOCK, start);
      }
      settleBlock(layer, codes, quantizer, r, panel, start, delta, top, height);
    }
  }
}

/** Columns [left, left + width). */
interface Panel {
  /** [height, width] */
  sums: Float64Array;
  left: number;
  width: number;
}

/** Adds the settled columns [first, first + depth) to the sums of the panel's columns from `start`. */
function addSettled(
  { sums, left, width }: Panel,
  delta: Float64Array,
  r: Float64Array,
  height: number,
  cols: number,
  first: number,
  depth: number,
  start: number,
): void {
  addTimesTransposed(
    { data: sums, start, stride: width },
    { data: delta, start: first, stride: cols },
    { data: r, start: (left + start) * cols + first, stride: cols },
    height,
    width - start,
    depth,
  );
}

/** Fits the levels of a group, row by row, to the W' that leave all its columns of δ·R at 0. */
function fitBand(
  { w, cols }: LayerWeights,
  codes: LayerCodes,
  quantizer: Quantizer,
  r: Float64Array,
  { sums, left, width }: Panel,
  top: number,
  height: number,
): void {
  const ahead = new Float64Array(width);
  const values = new Float64Array(width);
  for (let row = 0; row < height; row++) {
    const start = (top + row) * cols + left;
    if (left === 0) {
      for (let j = 0; j < width; j++) values[j] = w[start + j];
    } else {
      ahead.set(sums.subarray(row * width, (row + 1) * width));
      for (let j = 0; j < width; j++) {
        const line = (left + j) * cols + left;
        const correction = ahead[j] / r[line + j];
        for (let i = j + 1; i < width; i++) ahead[i] -= correction * r[line + i];
        values[j] = w[start + j] + correction;
      }
    }
    const levels = quantizer.fit(values, codes.codes.subarray(start, start + width));
    setLevels(codes, (top + row) * codes.groups + left / codes.group, levels);
  }
}

/** Codes the panel's columns from `start`, at most a block, and keeps their δ. */
function settleBlock(
  { w, cols }: LayerWeights,
  { group, groups, codes, scales, offsets }: LayerCodes,
  { low, high }: Quantizer,
  r: Float64Array,
  { sums, left, width }: Panel,
  start: number,
  delta: Float64Array,
  top: number,
  height: number,
): void {
  const end = Math.min(start + BLOCK, width);
  for (let row = 0; row < height; row++) {
    const at = (top + row) * groups + left / group;
    const scale = scales[at];
    const offset = offsets ? offsets[at] : 0;
    const weight = (top + row) * cols + left;
    const sum = row * width;
    for (let j = start; j < end; j++) {
      const line = (left + j) * cols + left;
      const value = w[weight + j] + sums[sum + j] / r[line + j];
      const code = scale === 0 ? 0 : nearestCode((value - offset) / scale, low, high);
      codes[weight + j] = code;
      const lost = w[weight + j] - (scale * code + offset);
      delta[row * cols + left + j] = lost;
      for (let i = j + 1; i < end; i++) sums[sum + i] += lost * r[line + i];
    }
  }
}
