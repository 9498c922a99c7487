/**
 * What coding costs at the output, from moments of the input.
 *
 *   W, Ŵ   [rows, K] weights and coded ones, D = W - Ŵ
 *   b      [rows] bias that was added, 0 when absent
 *   C, μ   E[xxᵀ], E[x]
 */
import { addTimesTransposed } from '../../../../src/methods/linalg/matrix.js';
import type {
  LayerCodes,
  LayerWeights,
  RowRange,
} from '../../../../src/methods/ternarize/maths/codes.js';
import { allRows, differenceRow } from '../../../../src/methods/ternarize/maths/codes.js';
import type { Hessian, InputMoments } from '../../../../src/methods/ternarize/maths/hessian.js';

/** tr(D·H·Dᵀ) / tr(W·H·Wᵀ), by the diagonal when there is no more; 0 when both are 0. */
export function relativeOutputError(
  layer: LayerWeights,
  codes: LayerCodes,
  { full, diagonal }: Hessian,
): number {
  const range = allRows(layer);
  const form = full ?? diagonal;
  const error = sum(quadraticForms(layer.cols, form, range, differences(layer, codes)));
  return ratio(error, sum(quadraticForms(layer.cols, form, range, weights(layer))));
}

/**
 * Σ E[(D·x - b)²] over outputs [from, to), of the moments of any data: with those of data that took no
 * part in coding, the held-out error. Of E[x²] alone, inputs count as uncorrelated.
 */
export function outputError(
  layer: LayerWeights,
  codes: LayerCodes,
  moments: InputMoments,
  bias?: Float64Array,
  range: RowRange = allRows(layer),
): number {
  const fill = differences(layer, codes);
  return sum(expectedSquares(layer.cols, moments, range, fill, bias));
}

/** Σ E[(W·x)²] over outputs [from, to), what `outputError` is to be compared with. */
export const outputPower = (
  layer: LayerWeights,
  moments: InputMoments,
  range: RowRange = allRows(layer),
): number => sum(expectedSquares(layer.cols, moments, range, weights(layer)));

/** Writes row `row` of a matrix to out[start, start + cols). */
type FillRow = (row: number, out: Float64Array, start: number) => void;

const differences =
  (layer: LayerWeights, codes: LayerCodes): FillRow =>
  (row, out, start) =>
    differenceRow(layer, codes, row, out, start);

const weights =
  ({ w, cols }: LayerWeights): FillRow =>
  (row, out, start) =>
    out.set(w.subarray(row * cols, (row + 1) * cols), start);

/** [to - from] E[(v·x - b)²] = v·C·vᵀ - 2·b·(v·μ) + b², v the rows; v·C·vᵀ from variances if need be. */
function expectedSquares(
  cols: number,
  { mean, squares, second }: InputMoments,
  range: RowRange,
  fill: FillRow,
  bias?: Float64Array,
): Float64Array {
  const variances = squares.map((square, i) => Math.max(0, square - mean[i] * mean[i]));
  const forms = quadraticForms(cols, second ? Float64Array.from(second) : variances, range, fill);
  const row = new Float64Array(cols);
  for (let r = range.from; r < range.to; r++) {
    const b = bias ? bias[r] : 0;
    fill(r, row, 0);
    let shift = 0;
    for (let i = 0; i < cols; i++) shift += row[i] * mean[i];
    forms[r - range.from] += second ? b * (b - 2 * shift) : (shift - b) ** 2;
  }
  return forms;
}

const BAND = 32;

/** [to - from] v·A·vᵀ of the rows v; A is [cols, cols], symmetric, or a diagonal [cols]. */
function quadraticForms(
  cols: number,
  a: Float64Array,
  { from, to }: RowRange,
  fill: FillRow,
): Float64Array {
  const forms = new Float64Array(to - from);
  // One input: its matrix is its diagonal.
  const isDiagonal = a.length === cols;
  const rows = new Float64Array(BAND * cols);
  const images = new Float64Array(BAND * cols);
  for (let top = from; top < to; top += BAND) {
    const height = Math.min(BAND, to - top);
    for (let r = 0; r < height; r++) fill(top + r, rows, r * cols);
    images.fill(0);
    if (isDiagonal) {
      for (let k = 0; k < height * cols; k++) images[k] = a[k % cols] * rows[k];
    } else {
      addTimesTransposed(
        { data: images, start: 0, stride: cols },
        { data: rows, start: 0, stride: cols },
        { data: a, start: 0, stride: cols },
        height,
        cols,
        cols,
      );
    }
    for (let k = 0; k < height * cols; k++) {
      forms[top - from + Math.floor(k / cols)] += rows[k] * images[k];
    }
  }
  return forms;
}

const ratio = (part: number, whole: number): number => (part === 0 ? 0 : part / whole);

function sum(values: Float64Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}
