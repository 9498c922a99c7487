import {
  allocateCodes,
  decodeRow,
  type Granularity,
  type LayerCodes,
  type LayerWeights,
} from '../../../../src/methods/ternarize/maths/codes.js';
import type { InputMoments } from '../../../../src/methods/ternarize/maths/hessian.js';
import { normals } from '../../sparsify/random.js';

export function randomLayer(rows: number, cols: number, seed: number): LayerWeights {
  const next = normals(seed);
  return { name: 'layer', w: Float32Array.from({ length: rows * cols }, next), rows, cols };
}

export function layerOf(rows: number, values: readonly number[]): LayerWeights {
  return { name: 'layer', w: Float32Array.from(values), rows, cols: values.length / rows };
}

export const codesFor = (layer: LayerWeights, granularity: Granularity, offsets = false) =>
  allocateCodes(layer, granularity, { offsets });

/** Ŵ [rows, cols] */
export function decoded(codes: LayerCodes): Float64Array {
  const out = new Float64Array(codes.rows * codes.cols);
  for (let r = 0; r < codes.rows; r++) decodeRow(codes, r, out, r * codes.cols);
  return out;
}

/** Inputs x [tokens, cols], channels correlated and not centred. */
export function randomInputs(tokens: number, cols: number, seed: number): Float64Array {
  const next = normals(seed);
  const mix = Float64Array.from({ length: cols * cols }, next);
  const mean = Float64Array.from({ length: cols }, next);
  const x = new Float64Array(tokens * cols);
  for (let t = 0; t < tokens; t++) {
    const z = Float64Array.from({ length: cols }, next);
    for (let i = 0; i < cols; i++) {
      let value = mean[i];
      for (let k = 0; k <= i; k++) value += mix[i * cols + k] * z[k];
      x[t * cols + i] = value;
    }
  }
  return x;
}

export function momentsOf(x: Float64Array, cols: number): Required<InputMoments> {
  const tokens = x.length / cols;
  const mean = new Float64Array(cols);
  const second = new Float64Array(cols * cols);
  for (let t = 0; t < tokens; t++) {
    const row = x.subarray(t * cols, (t + 1) * cols);
    for (let i = 0; i < cols; i++) {
      mean[i] += row[i] / tokens;
      for (let j = 0; j < cols; j++) second[i * cols + j] += (row[i] * row[j]) / tokens;
    }
  }
  return { tokens, mean, second, squares: mean.map((_, i) => second[i * (cols + 1)]) };
}

/** tr((W - Ŵ)·H·(W - Ŵ)ᵀ), the plain way. */
export function quadratic({ w, rows, cols }: LayerWeights, codes: LayerCodes, h: Float64Array) {
  const lost = decoded(codes).map((value, k) => w[k] - value);
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < cols; i++) {
      for (let j = 0; j < cols; j++) {
        sum += lost[r * cols + i] * h[i * cols + j] * lost[r * cols + j];
      }
    }
  }
  return sum;
}
