import type { LayerCodes, LayerWeights, RowRange } from './codes.js';
import { allRows, checkRows } from './codes.js';
import type { Levels, Quantizer } from './quantizer.js';

/**
 * Fits each group of rows [from, to) by itself into `codes`. `importance` [cols] weighs the squared
 * errors of a row (the mean square of each input); a quantizer that does not use it ignores it. A
 * tail group is fitted to the weights it has. With one scale for the tensor all rows must be given.
 *
 * Throws a model error for a weight that is NaN or infinite.
 */
export function fitRows(
  layer: LayerWeights,
  codes: LayerCodes,
  quantizer: Quantizer,
  importance?: Float64Array,
  { from, to }: RowRange = allRows(layer),
): void {
  checkRows(layer, { from, to });
  if (codes.shared) {
    requireAllRows(codes, { from, to });
    fitTensor(layer, codes, quantizer, importance);
    return;
  }
  const { w, cols } = layer;
  const { group, groups } = codes;
  const row = new Float64Array(cols);
  for (let r = from; r < to; r++) {
    const start = r * cols;
    for (let i = 0; i < cols; i++) row[i] = w[start + i];
    for (let g = 0, left = 0; g < groups; g++, left += group) {
      const right = Math.min(left + group, cols);
      const levels = quantizer.fit(
        row.subarray(left, right),
        codes.codes.subarray(start + left, start + right),
        importance?.subarray(left, right),
      );
      setLevels(codes, r * groups + g, levels);
    }
  }
}

export function setLevels(
  { scales, offsets }: LayerCodes,
  at: number,
  { scale, offset }: Levels,
): void {
  scales[at] = scale;
  if (offsets) offsets[at] = offset;
}

/** Throws when rows that share one scale are not treated together; a mistake of the caller. */
export function requireAllRows({ rows }: LayerCodes, { from, to }: RowRange): void {
  if (from !== 0 || to !== rows) throw new Error('one scale for the tensor needs all rows at once');
}

/** The whole layer as one group: 8 bytes (16 with importance) and 16 to sort, per weight. */
function fitTensor(
  { w, rows }: LayerWeights,
  codes: LayerCodes,
  quantizer: Quantizer,
  importance?: Float64Array,
): void {
  let repeated: Float64Array | undefined;
  if (importance) {
    repeated = new Float64Array(w.length);
    for (let r = 0; r < rows; r++) repeated.set(importance, r * importance.length);
  }
  const levels = quantizer.fit(Float64Array.from(w), codes.codes, repeated);
  codes.scales.fill(levels.scale);
  codes.offsets?.fill(levels.offset);
}
