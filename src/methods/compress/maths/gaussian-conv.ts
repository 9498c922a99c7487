/**
 * Covariance of a convolution's output channels, when positions of its input are correlated as
 * r^distance.
 *
 *   W, W̃    [N, M, taps] filters, and compressed ones [n, M̃, taps] on a compressed input
 *   C       [M, M] covariance of the input's channels at one position
 *   T       T[p, q] = r^(distance of taps p and q): the same for all pairs of channels
 *   V       W·(C ⊗ T)·Wᵀ, the covariance of the output as far as r is right
 */
import {
  addTimesTransposed,
  mirrorLower,
  timesTransposed,
  transpose,
} from '../../linalg/matrix.js';

/** Weights of a convolution, [outputs, inputs/groups, taps] row-major; of a Gemm, one tap. */
export interface Filters {
  weights: Float64Array;
  outputs: number;
  inputs: number;
  /** Sizes along the spatial axes; [] for a Gemm. */
  kernel: readonly number[];
  dilations?: readonly number[];
  groups: number;
}

/** [taps, taps] Euclidean distances. */
export function tapDistances({ kernel, dilations }: Filters): Float64Array {
  const taps = kernel.reduce((product, size) => product * size, 1);
  const squares = new Float64Array(taps * taps);
  let stride = taps;
  kernel.forEach((size, axis) => {
    stride /= size;
    const step = dilations?.[axis] ?? 1;
    const at = (tap: number) => Math.floor(tap / stride) % size;
    for (let p = 0; p < taps; p++) {
      for (let q = 0; q < taps; q++) squares[p * taps + q] += (step * (at(p) - at(q))) ** 2;
    }
  });
  return squares.map(Math.sqrt);
}

/** T [taps, taps]; r = 0 gives the identity. */
export const tapCorrelation = (filters: Filters, r: number): Float64Array =>
  tapDistances(filters).map((distance) => r ** distance);

/** Output channels whose products are computed together. */
const BAND = 64;

/**
 * Left·(C ⊗ T)·Rightᵀ [left.outputs, right.outputs], C [left.inputs, right.inputs]. Both must have the
 * same kernel. With left === right C must be symmetric, and half of the work is saved.
 */
export function convolvedCovariance(
  left: Filters,
  right: Filters,
  c: Float64Array,
  t: Float64Array,
): Float64Array {
  if (left === right) return product(left, right, c, t);
  const turned = transpose(c, left.inputs, right.inputs);
  if (multiplications(left, right) <= multiplications(right, left)) {
    return product(left, right, turned, t);
  }
  return transpose(product(right, left, c, t), right.outputs, left.outputs);
}

/** Of (Left·C)·Rightᵀ, per tap and group. */
const multiplications = (left: Filters, right: Filters): number =>
  left.outputs * right.inputs * (left.inputs + right.outputs);

/** `convolvedCovariance` as (Left·C)·(Right·T)ᵀ, of Cᵀ [right.inputs, left.inputs]. */
function product(
  left: Filters,
  right: Filters,
  columns: Float64Array,
  t: Float64Array,
): Float64Array {
  const taps = Math.sqrt(t.length);
  const same = left === right;
  const rows = tapMajor(left, taps);
  const smeared = smear(right, t, taps);
  const out = new Float64Array(left.outputs * right.outputs);
  const size = left.outputs / left.groups;
  const depth = left.inputs / left.groups;
  for (let group = 0; group < left.groups; group++) {
    for (let from = group * size; from < (group + 1) * size; from += BAND) {
      const height = Math.min(BAND, (group + 1) * size - from);
      // Wᵢ·C for the rows of the band, at every tap.
      const band = new Float64Array(height * taps * right.inputs);
      addTimesTransposed(
        { data: band, start: 0, stride: right.inputs },
        { data: rows, start: from * taps * depth, stride: depth },
        { data: columns, start: group * depth, stride: left.inputs },
        height * taps,
        right.inputs,
        depth,
      );
      const width = same ? from + height : right.outputs;
      addBand(out, band, smeared, right, taps, { from, height, width });
    }
  }
  if (same) mirrorLower(out, left.outputs);
  return out;
}

/** out[from..from + height, 0..width] = band·smearedᵀ, where an output of `right` sees the inputs of its group. */
function addBand(
  out: Float64Array,
  band: Float64Array,
  smeared: Float64Array,
  right: Filters,
  taps: number,
  { from, height, width }: { from: number; height: number; width: number },
): void {
  const { outputs, inputs, groups } = right;
  const size = outputs / groups;
  const depth = inputs / groups;
  // With one group the taps lie end to end and are one deep product.
  const pieces = groups === 1 ? 1 : taps;
  const length = groups === 1 ? taps * depth : depth;
  for (let group = 0; group * size < width; group++) {
    for (let piece = 0; piece < pieces; piece++) {
      addTimesTransposed(
        { data: out, start: from * outputs + group * size, stride: outputs },
        { data: band, start: piece * inputs + group * depth, stride: taps * inputs },
        {
          data: smeared,
          start: group * size * taps * depth + piece * depth,
          stride: taps * depth,
        },
        height,
        Math.min(size, width - group * size),
        length,
      );
    }
  }
}

/** [outputs, taps, inputs/groups] */
function tapMajor({ weights, outputs, inputs, groups }: Filters, taps: number): Float64Array {
  const depth = inputs / groups;
  if (taps === 1) return weights;
  const out = new Float64Array(weights.length);
  for (let i = 0; i < outputs; i++) {
    const start = i * depth * taps;
    for (let j = 0; j < depth; j++) {
      for (let p = 0; p < taps; p++) out[start + p * depth + j] = weights[start + j * taps + p];
    }
  }
  return out;
}

/** Σ_q T[p, q]·W[i, :, q], as `tapMajor`. */
function smear(
  { weights, outputs, inputs, groups }: Filters,
  t: Float64Array,
  taps: number,
): Float64Array {
  const depth = inputs / groups;
  if (taps === 1) return weights;
  const out = new Float64Array(weights.length);
  for (let i = 0, k = 0; i < outputs; i++) {
    for (let p = 0; p < taps * taps; p += taps) {
      for (let j = 0, w = i * depth * taps; j < depth; j++, w += taps) {
        let sum = 0;
        for (let q = 0; q < taps; q++) sum += t[p + q] * weights[w + q];
        out[k++] = sum;
      }
    }
  }
  return out;
}

/** Channels that r is fitted to. */
const FIT_CHANNELS = 128;
/** Values of r tried: 0 to 0.98. */
const GRID = 50;
const GRID_END = 0.98;

/**
 * The r, of 50 from 0 to 0.98, with the least mean of (log Vᵢᵢ - log varᵢ)², the smallest of equals.
 * Of more than 128 outputs, 128 evenly spaced ones are looked at; outputs without variance are not.
 * NaN when there is nothing to fit.
 */
export function fitTapCorrelation(
  filters: Filters,
  c: Float64Array,
  variance: Float64Array,
): number {
  const distances = tapDistances(filters);
  const classes = [...new Set(distances)];
  const classOf = Array.from(distances, (distance) => classes.indexOf(distance));
  const count = Math.min(filters.outputs, FIT_CHANNELS);
  const channels = Array.from({ length: count }, (_, k) =>
    Math.floor((k * filters.outputs) / count),
  ).filter((i) => variance[i] > 0);
  const targets = channels.map((i) => Math.log(variance[i]));
  const sums = diagonalsByDistance(filters, c, channels, classOf);
  let best = Number.NaN;
  let least = Infinity;
  for (let point = 0; point < GRID; point++) {
    const r = (point * GRID_END) / (GRID - 1);
    const powers = classes.map((distance) => r ** distance);
    let error = 0;
    let fitted = 0;
    sums.forEach((sum, k) => {
      let diagonal = 0;
      for (let d = 0; d < powers.length; d++) diagonal += powers[d] * sum[d];
      if (!(diagonal > 0)) return;
      error += (Math.log(diagonal) - targets[k]) ** 2;
      fitted++;
    });
    if (fitted > 0 && error / fitted < least) {
      least = error / fitted;
      best = r;
    }
  }
  return best;
}

/** Of each of `channels` i the sums over pairs of taps in Vᵢᵢ = Σ r^distance·sum[class of distance]. */
function diagonalsByDistance(
  { weights, outputs, inputs, groups }: Filters,
  c: Float64Array,
  channels: readonly number[],
  classOf: readonly number[],
): Float64Array[] {
  const taps = Math.sqrt(classOf.length);
  const depth = inputs / groups;
  const size = outputs / groups;
  const width = taps * depth;
  const sums: Float64Array[] = [];
  for (let group = 0; group < groups; group++) {
    const members = channels.filter((i) => Math.floor(i / size) === group);
    const rows = new Float64Array(members.length * width);
    members.forEach((i, k) => {
      const filter = weights.subarray(i * width, (i + 1) * width);
      rows.set(transpose(filter, depth, taps), k * width);
    });
    const products = new Float64Array(rows.length);
    addTimesTransposed(
      { data: products, start: 0, stride: depth },
      { data: rows, start: 0, stride: depth },
      { data: c, start: group * depth * (inputs + 1), stride: inputs },
      members.length * taps,
      depth,
      depth,
    );
    for (let start = 0; start < rows.length; start += width) {
      const [left, right] = [products, rows].map((a) => a.subarray(start, start + width));
      const sum = new Float64Array(Math.max(...classOf) + 1);
      timesTransposed(left, right, taps, taps, depth).forEach((value, pair) => {
        sum[classOf[pair]] += value;
      });
      sums.push(sum);
    }
  }
  return sums;
}
