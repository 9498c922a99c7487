/** Integer inference in plain loops: what a quantised model is to compute. */
import { even, product } from './helpers.js';

/** A tensor of uint8 codes: x = scale·(code - zeroPoint). */
export interface Codes {
  dims: number[];
  codes: number[];
  scale: number;
  zeroPoint: number;
}

export interface Interval {
  min: number;
  max: number;
}

function grid({ min, max }: Interval) {
  const [low, high] = [Math.min(0, min), Math.max(0, max)];
  const scale = Math.fround((high - low) / 255);
  return { scale, zeroPoint: even(-low / scale) };
}

const saturated = (code: number): number => Math.min(255, Math.max(0, code));

export function toCodes(values: ArrayLike<number>, dims: number[], range: Interval): Codes {
  const g = grid(range);
  const codes = Array.from(values, (x) => saturated(even(x / g.scale) + g.zeroPoint));
  return { dims, codes, ...g };
}

export const toFloats = ({ codes, scale, zeroPoint }: Codes): number[] =>
  codes.map((c) => scale * (c - zeroPoint));

/** int8 codes and a scale per row. */
export function weightCodes(w: ArrayLike<number>, rows: number, bits: number) {
  const cols = w.length / rows;
  const high = 2 ** (bits - 1) - 1;
  const scales = Array.from({ length: rows }, (_, r) => {
    let most = 0;
    for (let k = r * cols; k < (r + 1) * cols; k++) most = Math.max(most, Math.abs(w[k]));
    return Math.fround(most / high);
  });
  const codes = Array.from(w, (x, k) => even(x / scales[Math.floor(k / cols)]));
  return { codes, scales };
}

/** Convolution of stride 1 that keeps the size: kernel 1 or 3, padded by 0 or 1. */
export function convolve(
  x: Codes,
  w: {
    values: ArrayLike<number>;
    dims: number[];
    bias: ArrayLike<number>;
    group: number;
    bits: number;
  },
  range: Interval,
): Codes {
  const [n, , height, width] = x.dims;
  const [outputs, perGroup, kernel] = w.dims;
  const pad = (kernel - 1) / 2;
  const { codes, scales } = weightCodes(w.values, outputs, w.bits);
  const out = grid(range);
  const made: number[] = [];
  for (let b = 0; b < n; b++)
    for (let o = 0; o < outputs; o++) {
      const first = Math.floor((o * w.group) / outputs) * perGroup;
      const unit = Math.fround(x.scale * scales[o]);
      for (let i = 0; i < height; i++)
        for (let j = 0; j < width; j++) {
          let sum = even(w.bias[o] / unit);
          for (let c = 0; c < perGroup; c++)
            for (let p = 0; p < kernel; p++)
              for (let q = 0; q < kernel; q++) {
                const [row, col] = [i + p - pad, j + q - pad];
                if (row < 0 || col < 0 || row >= height || col >= width) continue;
                const at = ((b * x.dims[1] + first + c) * height + row) * width + col;
                const weight = codes[((o * perGroup + c) * kernel + p) * kernel + q];
                sum += weight * (x.codes[at] - x.zeroPoint);
              }
          made.push(saturated(even((sum * unit) / out.scale) + out.zeroPoint));
        }
    }
  return { dims: [n, outputs, height, width], codes: made, ...out };
}

export function add(a: Codes, b: Codes, range: Interval): Codes {
  const other = toFloats(b);
  return toCodes(
    toFloats(a).map((x, i) => x + other[i]),
    a.dims,
    range,
  );
}

/** Of 2 by 2, stride 2. */
export function maxPool(x: Codes): Codes {
  const [n, channels, height, width] = x.dims;
  const codes: number[] = [];
  for (let plane = 0; plane < n * channels; plane++)
    for (let i = 0; i < height; i += 2)
      for (let j = 0; j < width; j += 2) {
        const at = (p: number, q: number) => x.codes[(plane * height + i + p) * width + j + q];
        codes.push(Math.max(at(0, 0), at(0, 1), at(1, 0), at(1, 1)));
      }
  return { ...x, dims: [n, channels, height / 2, width / 2], codes };
}

/** [N, C] */
export function globalAverage(x: Codes, range: Interval): Codes {
  const [n, channels, ...space] = x.dims;
  const size = product(space);
  const values = toFloats(x);
  const means = Array.from({ length: n * channels }, (_, plane) => {
    let sum = 0;
    for (let k = plane * size; k < (plane + 1) * size; k++) sum += values[k];
    return sum / size;
  });
  return toCodes(means, [n, channels], range);
}

/** x wᵀ + b in floats, w [outputs, inputs]. */
export function linear(
  x: Codes,
  w: { values: ArrayLike<number>; bias: ArrayLike<number>; bits: number },
): number[] {
  const [n, inputs] = x.dims;
  const outputs = w.bias.length;
  const { codes, scales } = weightCodes(w.values, outputs, w.bits);
  const made: number[] = [];
  for (let b = 0; b < n; b++)
    for (let o = 0; o < outputs; o++) {
      const unit = Math.fround(x.scale * scales[o]);
      let sum = even(w.bias[o] / unit);
      for (let k = 0; k < inputs; k++)
        sum += codes[o * inputs + k] * (x.codes[b * inputs + k] - x.zeroPoint);
      made.push(sum * unit);
    }
  return made;
}
