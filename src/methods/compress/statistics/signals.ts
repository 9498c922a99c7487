/**
 * What linear operations make of signals. `kept` are the channels that the compressed network still
 * has, ascending; undefined when it has all.
 */
import { choleskyInPlace, solveInPlace } from '../../linalg/cholesky.js';
import { submatrix, timesTransposed, transpose } from '../../linalg/matrix.js';
import { range } from '../maths/mixing.js';
import { type CompressedMoments, type Moments, type Signal, unchanged } from '../maths/moments.js';

/** scale·x + shift, per channel of the original. */
export function affineSignal(
  { original, compressed }: Signal,
  scale: Float64Array,
  shift: Float64Array,
  kept?: Uint32Array,
): Signal {
  const after = affineMoments(original, scale, shift);
  if (!compressed) return { original: after };
  const [a, b] = [pick(scale, kept), pick(shift, kept)];
  const cross = scaled(compressed.cross, scale, a);
  return { original: after, compressed: { ...affineMoments(compressed, a, b), cross } };
}

function affineMoments(before: Moments, scale: Float64Array, shift: Float64Array): Moments {
  return {
    mean: before.mean.map((m, i) => scale[i] * m + shift[i]),
    covariance: scaled(before.covariance, scale, scale),
  };
}

const scaled = (a: Float64Array, rows: Float64Array, cols: Float64Array): Float64Array =>
  a.map((value, k) => value * rows[Math.floor(k / cols.length)] * cols[k % cols.length]);

/** A mean over positions: means stay, covariances shrink by `factor`. */
export function shrinkSignal({ original, compressed }: Signal, factor: number): Signal {
  const times = (a: Float64Array) => a.map((value) => factor * value);
  const shrink = ({ mean, covariance }: Moments) => ({ mean, covariance: times(covariance) });
  return {
    original: shrink(original),
    ...(compressed && {
      compressed: { ...shrink(compressed), cross: times(compressed.cross) },
    }),
  };
}

/**
 * The product of two independent signals of the same channels, x and g:
 * Cov(gᵢxᵢ, gⱼxⱼ) = Gᵢⱼ·Cᵢⱼ + Gᵢⱼ·mᵢ·mⱼ + γᵢ·γⱼ·Cᵢⱼ, with means m, γ and covariances C, G.
 */
export function multiplySignals(x: Signal, g: Signal): Signal {
  const original = multiplyMoments(x.original, g.original);
  if (!x.compressed && !g.compressed) return { original };
  const left = x.compressed ?? unchanged(x.original);
  const right = g.compressed ?? unchanged(g.original);
  const cross = productCovariance(
    { covariance: left.cross, rows: x.original.mean, cols: left.mean },
    { covariance: right.cross, rows: g.original.mean, cols: right.mean },
  );
  return { original, compressed: { ...multiplyMoments(left, right), cross } };
}

function multiplyMoments(x: Moments, g: Moments): Moments {
  const side = ({ mean, covariance }: Moments) => ({ covariance, rows: mean, cols: mean });
  return {
    mean: x.mean.map((m, i) => m * g.mean[i]),
    covariance: productCovariance(side(x), side(g)),
  };
}

interface Pairs {
  covariance: Float64Array;
  rows: Float64Array;
  cols: Float64Array;
}

const productCovariance = (x: Pairs, g: Pairs): Float64Array =>
  x.covariance.map((c, k) => {
    const [i, j] = [Math.floor(k / x.cols.length), k % x.cols.length];
    const both = g.covariance[k];
    return both * (c + x.rows[i] * x.cols[j]) + g.rows[i] * g.cols[j] * c;
  });

/** A signal and the channels that are left of it. */
export interface KeptSignal {
  signal: Signal;
  kept?: Uint32Array;
}

/** Channels behind each other; those of different signals are taken to be uncorrelated. */
export function concatSignals(parts: readonly KeptSignal[]): KeptSignal {
  const originals = parts.map(({ signal }) => signal.original);
  const sizes = originals.map(({ mean }) => mean.length);
  const original = concatMoments(originals, sizes);
  if (parts.every(({ signal }) => !signal.compressed)) return { signal: { original } };
  const compressed = parts.map(({ signal }) => signal.compressed ?? unchanged(signal.original));
  const widths = compressed.map(({ mean }) => mean.length);
  const cross = blockDiagonal(
    compressed.map((c) => c.cross),
    sizes,
    widths,
  );
  const signal = { original, compressed: { ...concatMoments(compressed, widths), cross } };
  if (parts.every(({ kept }) => !kept)) return { signal };
  let first = 0;
  const kept = parts.flatMap((part, i) => {
    const start = first;
    first += sizes[i];
    return Array.from(part.kept ?? range(sizes[i]), (channel) => start + channel);
  });
  return { signal, kept: Uint32Array.from(kept) };
}

function concatMoments(parts: readonly Moments[], sizes: readonly number[]): Moments {
  const mean = new Float64Array(sizes.reduce((a, b) => a + b, 0));
  let first = 0;
  for (const part of parts) {
    mean.set(part.mean, first);
    first += part.mean.length;
  }
  const blocks = parts.map(({ covariance }) => covariance);
  return { mean, covariance: blockDiagonal(blocks, sizes, sizes) };
}

function blockDiagonal(
  blocks: readonly Float64Array[],
  rows: readonly number[],
  cols: readonly number[],
): Float64Array {
  const width = cols.reduce((a, b) => a + b, 0);
  const out = new Float64Array(rows.reduce((a, b) => a + b, 0) * width);
  let [row, col] = [0, 0];
  blocks.forEach((block, b) => {
    for (let i = 0; i < rows[b]; i++) {
      out.set(block.subarray(i * cols[b], (i + 1) * cols[b]), (row + i) * width + col);
    }
    row += rows[b];
    col += cols[b];
  });
  return out;
}

/** The channels `indices` of the original, in that order. */
export function selectChannels(
  { signal: { original, compressed }, kept }: KeptSignal,
  indices: ArrayLike<number>,
): KeptSignal {
  const after = selectMoments(original, indices);
  if (!compressed) return { signal: { original: after } };
  const all = Array.from(indices);
  const place = new Map(Array.from(kept ?? range(original.mean.length), (c, m) => [c, m]));
  const left = all.flatMap((channel, i) => (place.has(channel) ? [i] : []));
  const columns = left.map((i) => place.get(all[i]) ?? 0);
  const cross = submatrix(compressed.cross, compressed.mean.length, all, columns);
  return {
    signal: { original: after, compressed: { ...selectMoments(compressed, columns), cross } },
    kept: kept && Uint32Array.from(left),
  };
}

const selectMoments = ({ mean, covariance }: Moments, indices: ArrayLike<number>): Moments => ({
  mean: Float64Array.from(indices, (i) => mean[i]),
  covariance: submatrix(covariance, mean.length, indices, indices),
});

/** The moments of a tensor of which the compressed network has only the channels `kept`, as they were. */
export function droppedMoments(original: Moments, kept: Uint32Array): CompressedMoments {
  const channels = original.mean.length;
  return {
    ...selectMoments(original, kept),
    cross: submatrix(original.covariance, channels, range(channels), kept),
  };
}

/** Of the mean variance, added before a covariance is inverted. */
const RIDGE = 1e-6;

/**
 * The signal whose original has other, measured, moments. What the compressed network makes of the
 * original stays as it was: the regression ỹ = B·y + e, with its residual.
 */
export function rebased({ original, compressed }: Signal, measured: Moments): Signal {
  if (!compressed) return { original: measured };
  const n = original.mean.length;
  const width = compressed.mean.length;
  const factor = original.covariance.slice();
  let trace = 0;
  for (let i = 0; i < n; i++) trace += original.covariance[i * (n + 1)];
  for (let i = 0; i < n; i++) factor[i * (n + 1)] += trace > 0 ? (RIDGE * trace) / n : 1;
  if (!choleskyInPlace(factor, n)) return { original: measured };
  const b = transpose(compressed.cross, n, width);
  solveInPlace(factor, n, b, width);
  const change = measured.covariance.map((value, k) => value - original.covariance[k]);
  const changed = timesTransposed(change, b, n, width, n);
  const added = timesTransposed(b, transpose(changed, n, width), width, width, n);
  const mean = compressed.mean.map((value, m) => {
    let sum = value;
    for (let i = 0; i < n; i++) sum += b[m * n + i] * (measured.mean[i] - original.mean[i]);
    return sum;
  });
  return {
    original: measured,
    compressed: {
      mean,
      covariance: compressed.covariance.map((value, k) => value + added[k]),
      cross: compressed.cross.map((value, k) => value + changed[k]),
    },
  };
}

const pick = (values: Float64Array, kept?: Uint32Array): Float64Array =>
  kept ? Float64Array.from(kept, (channel) => values[channel]) : values;
