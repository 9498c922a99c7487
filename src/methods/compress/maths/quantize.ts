/**
 * Rounding weights to few bits.
 *
 *   W      [rows, cols] weights, an output channel per row
 *   k      bits
 *   Q      2^(k-1) - 1, the highest code of a symmetric quantizer
 *   s      scale: W̃ = s·code
 */
import { roundHalfEven } from './rounding.js';

/** Symmetric codes in [-Q, Q] and their scales: one per row, or a single one. */
export interface Quantized {
  codes: Int16Array;
  scales: Float64Array;
}

/** Q of `bits` in 2 to 16. */
export const highestCode = (bits: number): number => 2 ** (bits - 1) - 1;

/** max|W|/Q of each of `rows` equal runs of W; 1 for a run of zeros. */
export function maxScales(w: Float64Array, rows: number, bits: number): Float64Array {
  const cols = w.length / rows;
  const scales = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let max = 0;
    for (let k = row * cols; k < (row + 1) * cols; k++) max = Math.max(max, Math.abs(w[k]));
    scales[row] = max > 0 ? max / highestCode(bits) : 1;
  }
  return scales;
}

/** Fractions of the largest scale that `leastSquaresScales` tries: 0.30 to 1.00. */
const GRID = 71;
const GRID_START = 0.3;

/**
 * Of 71 fractions, 0.30 to 1.00, of each of `maxScales`, the one with the least squared error, the
 * smallest of equals.
 */
export function leastSquaresScales(w: Float64Array, rows: number, bits: number): Float64Array {
  const cols = w.length / rows;
  const high = highestCode(bits);
  return maxScales(w, rows, bits).map((scale, row) => {
    let best = scale;
    let least = Infinity;
    // Too small a scale soon shows, by what it clips: from the top most fractions are given up early.
    for (let point = GRID - 1; point >= 0; point--) {
      const s = scale * (GRID_START + (point * (1 - GRID_START)) / (GRID - 1));
      let error = 0;
      for (let k = row * cols; k < (row + 1) * cols && error <= least; k++) {
        const difference = w[k] - s * clampedCode(w[k] / s, high);
        error += difference * difference;
      }
      if (error <= least) {
        least = error;
        best = s;
      }
    }
    return best;
  });
}

/** Nearest codes under the given scales, halves to even: one scale per row, or one for all of W. */
export function quantize(w: Float64Array, scales: Float64Array, bits: number): Quantized {
  const cols = w.length / scales.length;
  const high = highestCode(bits);
  const codes = new Int16Array(w.length);
  for (let row = 0; row < scales.length; row++) {
    const s = scales[row];
    for (let k = row * cols; k < (row + 1) * cols; k++) codes[k] = clampedCode(w[k] / s, high);
  }
  return { codes, scales };
}

/** The code of x = w/s; NaN stays NaN. */
export function clampedCode(x: number, high: number): number {
  const code = roundHalfEven(x);
  return code > high ? high : code < -high ? -high : code;
}

/** W̃ [rows, cols] */
export function dequantize({ codes, scales }: Quantized): Float64Array {
  const cols = codes.length / scales.length;
  const values = new Float64Array(codes.length);
  for (let row = 0; row < scales.length; row++) {
    for (let k = row * cols; k < (row + 1) * cols; k++) values[k] = scales[row] * codes[k];
  }
  return values;
}

/**
 * W̃ of the mid-rise quantizer, 2^k levels over [-max|W|, max|W|], none of them zero:
 * max·(2·round(q·(W/(2·max) + 1/2))/q - 1), q = 2^k - 1. All zeros stay zeros.
 */
export function midRise(w: Float64Array, bits: number): Float64Array {
  const steps = 2 ** bits - 1;
  let max = 0;
  for (const x of w) max = Math.max(max, Math.abs(x));
  if (max === 0) return w.slice();
  return w.map((x) => max * ((2 * roundHalfEven(steps * (x / (2 * max) + 0.5))) / steps - 1));
}
