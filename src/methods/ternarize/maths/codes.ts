import { modelError, usageError } from '../../../errors.js';

/** A layer y = x·Wᵀ. */
export interface LayerWeights {
  /** For error messages. */
  name: string;
  /** [rows = outputs, cols = inputs] row-major. */
  w: Float32Array;
  rows: number;
  cols: number;
}

/** What shares a scale: all weights, those of an output, or so many consecutive inputs of an output. */
export type Granularity = 'tensor' | 'channel' | { group: number };

/** Codes of a layer: Ŵ = scale·code (+ offset). */
export interface LayerCodes {
  rows: number;
  cols: number;
  /** Inputs per scale; the last group of a row may have fewer. */
  group: number;
  /** Groups per row. */
  groups: number;
  /** Granularity 'tensor': every row has the same single scale (and offset). */
  shared: boolean;
  /** [rows, cols] */
  codes: Int8Array;
  /** [rows, groups]; 0 where every code is 0. */
  scales: Float32Array;
  /** [rows, groups], of the asymmetric quantizer. */
  offsets?: Float32Array;
}

/** Rows [from, to) of a layer. */
export interface RowRange {
  from: number;
  to: number;
}

export const allRows = ({ rows }: { rows: number }): RowRange => ({ from: 0, to: rows });

/** Scales below it are 0: their products with activations would be denormal. */
const LEAST_SCALE = 1e-30;

export const flushScale = (scale: number): number => (Math.abs(scale) < LEAST_SCALE ? 0 : scale);

/**
 * Inputs per scale of layers with `cols` inputs. Throws a usage error for a group size that is not a
 * positive integer.
 */
export function groupSize(granularity: Granularity, cols: number): number {
  const wanted = typeof granularity === 'object' ? granularity.group : Math.max(1, cols);
  if (!Number.isInteger(wanted) || wanted < 1) {
    throw usageError('the group size is not a positive integer', { got: String(wanted) });
  }
  return Math.max(1, Math.min(wanted, cols));
}

/**
 * All codes and scales 0. Workers can fill them when `Memory` is SharedArrayBuffer.
 * Throws a usage error for a group size that is not a positive integer.
 */
export function allocateCodes(
  { rows, cols }: Pick<LayerWeights, 'rows' | 'cols'>,
  granularity: Granularity,
  options: {
    offsets?: boolean;
    Memory?: ArrayBufferConstructor | SharedArrayBufferConstructor;
  } = {},
): LayerCodes {
  const { Memory = ArrayBuffer } = options;
  const group = groupSize(granularity, cols);
  const groups = Math.ceil(cols / group);
  const perGroup = () => new Float32Array(new Memory(4 * rows * groups));
  return {
    rows,
    cols,
    group,
    groups,
    shared: granularity === 'tensor',
    codes: new Int8Array(new Memory(rows * cols)),
    scales: perGroup(),
    offsets: options.offsets ? perGroup() : undefined,
  };
}

/** A copy that can be refined while the original is kept. */
export const copyCodes = (codes: LayerCodes): LayerCodes => ({
  ...codes,
  codes: codes.codes.slice(),
  scales: codes.scales.slice(),
  offsets: codes.offsets?.slice(),
});

/** Writes row `row` of Ŵ to out[start, start + cols). Without offsets every value is a float32. */
export function decodeRow(
  { cols, group, groups, codes, scales, offsets }: LayerCodes,
  row: number,
  out: Float64Array | Float32Array,
  start = 0,
): void {
  for (let g = 0, from = 0; g < groups; g++, from += group) {
    const scale = scales[row * groups + g];
    const offset = offsets ? offsets[row * groups + g] : 0;
    const to = Math.min(from + group, cols);
    for (let i = from; i < to; i++) out[start + i] = scale * codes[row * cols + i] + offset;
  }
}

/** Writes W - Ŵ of a row to out[start, start + cols). */
export function differenceRow(
  { w, cols }: LayerWeights,
  codes: LayerCodes,
  row: number,
  out: Float64Array,
  start = 0,
): void {
  decodeRow(codes, row, out, start);
  for (let i = 0; i < cols; i++) out[start + i] = w[row * cols + i] - out[start + i];
}

/** Throws a model error that names the first weight of these rows that is NaN or infinite. */
export function checkRows({ name, w, rows, cols }: LayerWeights, { from, to }: RowRange): void {
  if (w.length !== rows * cols) throw new Error(`${w.length} weights are not [${rows}, ${cols}]`);
  for (let k = from * cols; k < to * cols; k++) {
    if (Number.isFinite(w[k])) continue;
    throw modelError('a weight is not a finite number', {
      where: `${name}, output ${Math.floor(k / cols)}, input ${k % cols}`,
      expected: 'finite weights',
      got: String(w[k]),
      hint: 'Exclude this layer, or repair the model.',
    });
  }
}
