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
  const taps = Math.sqrt(t.length);
  const same = left === right;
  const columns = same ? c : transpose(c, left.inputs, right.inputs);
  const rows = tapMajor(left, taps);
  const smeared = smear(same ? rows : tapMajor(right, taps), t, taps, right.inputs / right.groups);
  const out = new Float64Array(left.outputs * right.outputs);
  const size = left.outputs / left.groups;
  const depth = left.inputs / left.groups;
  for (let group = 0; group < left.groups; group++) {
    for (let from = group * size; from < (group + 1) * size; from += BAND) {
      const height = Math.min(BAND, (group + 1) * size - from);
      // Wᵢ·C for the rows of the band, at every tap.
      const product = new Float64Array(height * taps * right.inputs);
      addTimesTransposed(
        { data: product, start: 0, stride: right.inputs },
        { data: rows, start: from * taps * depth, stride: depth },
        { data: columns, start: group * depth, stride: left.inputs },
        height * taps,
        right.inputs,
        depth,
      );
      const width = same ? from + height : right.outputs;
      addBand(out, product, smeared, right, taps, { from, height, width });
    }
  }
  if (same) mirrorLower(out, left.outputs);
  return out;
}

/** out[band, 0..width] = product·smearedᵀ, where an output of `right` sees the inputs of its group. */
function addBand(
  out: Float64Array,
  product: Float64Array,
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
        { data: product, start: piece * inputs + group * depth, stride: taps * inputs },
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

/** Σ_q T[p, q]·w[i, q, :] of tap-major filters w [outputs, taps, depth]. */
function smear(w: Float64Array, t: Float64Array, taps: number, depth: number): Float64Array {
  if (taps === 1) return w;
  const out = new Float64Array(w.length);
  for (let start = 0; start < w.length; start += taps * depth) {
    for (let p = 0; p < taps; p++) {
      for (let q = 0; q < taps; q++) {
        const share = t[p * taps + q];
        for (let j = 0; j < depth; j++)
          out[start + p * depth + j] += share * w[start + q * depth + j];
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
  const sums: Float64Array[] = [];
  const targets: number[] = [];
  for (let k = 0; k < count; k++) {
    const i = Math.floor((k * filters.outputs) / count);
    if (!(variance[i] > 0)) continue;
    sums.push(diagonalByDistance(filters, c, i, classOf, classes.length));
    targets.push(Math.log(variance[i]));
  }
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

/** Vᵢᵢ = Σ r^distance·sum[class of distance]: the sums over pairs of taps. */
function diagonalByDistance(
  { weights, outputs, inputs, groups }: Filters,
  c: Float64Array,
  i: number,
  classOf: readonly number[],
  classes: number,
): Float64Array {
  const taps = Math.sqrt(classOf.length);
  const depth = inputs / groups;
  const first = Math.floor((i * groups) / outputs) * depth;
  const filter = transpose(weights.subarray(i * depth * taps, (i + 1) * depth * taps), depth, taps);
  const product = new Float64Array(taps * depth);
  addTimesTransposed(
    { data: product, start: 0, stride: depth },
    { data: filter, start: 0, stride: depth },
    { data: c, start: first * inputs + first, stride: inputs },
    taps,
    depth,
    depth,
  );
  const pairs = timesTransposed(product, filter, taps, taps, depth);
  const sums = new Float64Array(classes);
  pairs.forEach((value, pair) => {
    sums[classOf[pair]] += value;
  });
  return sums;
}
