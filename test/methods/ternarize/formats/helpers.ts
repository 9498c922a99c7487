import type { WeightLayer } from '../../../../src/graph/weight-layers.js';
import { storeFloats } from '../../../../src/methods/ternarize/formats/float.js';
import type {
  ChooseCodes,
  CodedLayer,
  StoredCodes,
} from '../../../../src/methods/ternarize/formats/layers.js';
import { storeBlocks } from '../../../../src/methods/ternarize/formats/ort.js';
import { storePacked } from '../../../../src/methods/ternarize/formats/standard.js';
import { storeIntegers } from '../../../../src/methods/ternarize/formats/standard-int8.js';
import type { Model } from '../../../../src/onnx/index.js';
import { node } from '../../../support/protos.js';
import { network, noise, stored } from '../../compress/formats/helpers.js';

/**
 * Codes without a rule to them, scales of either sign, and a group of zeros if there are several: half
 * with scale 0, half with codes 0.
 */
export function someCodes(
  rows: number,
  cols: number,
  wanted = cols,
  { low = -1, seed = 3 } = {},
): CodedLayer['codes'] {
  const group = Math.min(wanted, cols);
  const groups = Math.ceil(cols / group);
  const codes = Int8Array.from(noise(rows * cols, seed), (v) =>
    Math.max(low, Math.min(1, Math.floor((v + 1) * (1 - low / 2 + 0.5)) + low)),
  );
  const scales = noise(rows * groups, seed + 1).map((v) => v / 4 + Math.sign(v) / 8);
  if (rows * groups > 4) {
    scales[1] = 0;
    const at = Math.floor(3 / groups) * cols + (3 % groups) * group;
    codes.fill(0, at, Math.min(at + group, (Math.floor(3 / groups) + 1) * cols));
  }
  return { rows, cols, group, groups, codes, scales };
}

/** The codes' weights, [rows, cols], in float64. */
export function decoded({ rows, cols, group, groups, codes, scales }: CodedLayer['codes']) {
  const values = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++)
      values[r * cols + c] = codes[r * cols + c] * scales[r * groups + Math.floor(c / group)];
  return values;
}

/** x [samples, inputs] times the weights, plus the bias, in float64. */
export function product(
  x: ArrayLike<number>,
  { codes, bias }: CodedLayer,
  { alpha = 1, more = (() => 0) as (row: number, output: number) => number } = {},
): Float64Array {
  const { rows, cols } = codes;
  const w = decoded(codes);
  const samples = x.length / cols;
  const y = new Float64Array(samples * rows);
  for (let s = 0; s < samples; s++)
    for (let r = 0; r < rows; r++) {
      let sum = 0;
      for (let c = 0; c < cols; c++) sum += x[s * cols + c] * w[r * cols + c];
      y[s * rows + r] = alpha * sum + (bias?.[r] ?? 0) + more(s, r);
    }
  return y;
}

/** RMS of the difference over RMS of what was to come out. */
export function relativeError(got: ArrayLike<number>, wanted: ArrayLike<number>): number {
  expect(got.length).toBe(wanted.length);
  let [error, size] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    error += (got[i] - wanted[i]) ** 2;
    size += wanted[i] ** 2;
  }
  return Math.sqrt(error / size);
}

/** The same layer for every weight. */
export const always = (ternary: CodedLayer) => (_: WeightLayer) => ternary;

export type Store = (model: Model, choose: ChooseCodes) => Promise<StoredCodes[]>;
export const blocks2: Store = (model, choose) => storeBlocks(model, choose, { bits: 2 });
export const archived: Store = (model, choose) =>
  storeBlocks(model, choose, { bits: 2, pack: 'trits' });
export const blocks4: Store = (model, choose) => storeBlocks(model, choose, { bits: 4 });

interface Format {
  store: Store;
  /** Relative error of ONNX Runtime, as it optimises, against float64. */
  error: number;
  /** Has room for several scales an output. */
  groups: boolean;
}

export const formats: [name: string, format: Format][] = [
  ['ort', { store: blocks2, error: 1e-2, groups: true }],
  ['ort, packed trits', { store: archived, error: 1e-2, groups: true }],
  ['ort4', { store: blocks4, error: 1e-2, groups: true }],
  ['standard', { store: storePacked, error: 1e-5, groups: true }],
  ['standard-int8', { store: storeIntegers, error: 2e-2, groups: false }],
  ['float', { store: storeFloats, error: 1e-5, groups: true }],
];

/** One MatMul of x [samples, cols]. */
export const matMul = (rows: number, cols: number, samples = 5): Model =>
  network([node('MatMul', ['x', 'w'], ['y'])], [stored('w', [cols, rows])], [samples, cols]);
