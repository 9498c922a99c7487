/**
 * A removed channel lives on as a linear combination of kept ones, which the next linear layer
 * absorbs: V'[p, m] = Σᵢ V[p, i]·S[i, m] (Neuron Merging, arXiv 2010.13160; UDFC, arXiv 2308.07209).
 *
 *   N, n   channels before, and kept
 *   K      the kept channels, ascending; n of them
 *   S      [N, n] mixing matrix; row i says what stands in for channel i
 *   V      weight of a consumer, with its channel axis anywhere
 */
import { timesTransposed, transpose } from '../../linalg/matrix.js';

/** S0 [N, n]: kept channels stand for themselves, removed ones for nothing. */
export function dropMatrix(kept: Uint32Array, channels: number): Float64Array {
  const s = new Float64Array(channels * kept.length);
  kept.forEach((channel, m) => {
    s[channel * kept.length + m] = 1;
  });
  return s;
}

/** A tensor seen around its channel axis: [outer, channels, inner] row-major. */
export interface AxisView {
  outer: number;
  channels: number;
  inner: number;
}

/** Elements that are transposed at a time. */
const CHUNK = 1 << 20;

/**
 * V·S along the channel axis: [outer, N, inner] to [outer, n, inner]. The same for every consumer:
 * Conv [P, N, k, k] is outer P, inner k·k; ConvTranspose [N, P, k, k] is outer 1, inner P·k·k; a Gemm
 * after Flatten of [N, H, W] is outer P, inner H·W with transB, else outer 1, inner H·W·P.
 *
 * A grouped Conv [P, N/groups, k, k] has channels N/groups; block b of `s`, which must be block
 * diagonal, is applied to the b-th part of its outputs, and n/groups channels are left on the axis.
 */
export function mixAxis(
  v: Float64Array,
  { outer, channels, inner }: AxisView,
  s: Float64Array,
  kept: number,
  groups = 1,
): Float64Array {
  const width = kept / groups;
  const out = new Float64Array(outer * width * inner);
  const part = outer / groups;
  const step = Math.max(1, Math.floor(CHUNK / (channels * inner)));
  for (let group = 0; group < groups; group++) {
    const columns = blockColumns(s, channels, width, kept, group);
    for (let from = group * part; from < (group + 1) * part; from += step) {
      const to = Math.min(from + step, (group + 1) * part);
      mixSlices(v, out, { channels, inner, width }, columns, from, to);
    }
  }
  return out;
}

/** Outer slices [from, to) of `mixAxis`; `columns` [width, channels] is Sᵀ. */
function mixSlices(
  v: Float64Array,
  out: Float64Array,
  { channels, inner, width }: { channels: number; inner: number; width: number },
  columns: Float64Array,
  from: number,
  to: number,
): void {
  const rows = new Float64Array((to - from) * inner * channels);
  for (let p = from; p < to; p++) {
    for (let i = 0; i < channels; i++) {
      const source = (p * channels + i) * inner;
      const target = (p - from) * inner * channels + i;
      for (let t = 0; t < inner; t++) rows[target + t * channels] = v[source + t];
    }
  }
  const mixed = timesTransposed(rows, columns, (to - from) * inner, width, channels);
  for (let p = from; p < to; p++) {
    for (let m = 0; m < width; m++) {
      const target = (p * width + m) * inner;
      const source = (p - from) * inner * width + m;
      for (let t = 0; t < inner; t++) out[target + t] = mixed[source + t * width];
    }
  }
}

/** Sᵀ [width, channels] of the diagonal block `block` of S. */
function blockColumns(
  s: Float64Array,
  channels: number,
  width: number,
  kept: number,
  block: number,
): Float64Array {
  if (width === kept) return transpose(s, channels, kept);
  const columns = new Float64Array(width * channels);
  for (let i = 0; i < channels; i++) {
    const row = (block * channels + i) * kept + block * width;
    for (let m = 0; m < width; m++) columns[m * channels + i] = s[row + m];
  }
  return columns;
}

/**
 * Zeroes a[i, j] where channels rows[i] and cols[j] are in different ones of `blocks` equal runs of
 * `channels`, in place. The systems that S solves fall apart into blocks if their matrices do, and a
 * grouped consumer can absorb nothing else.
 */
export function keepBlocks(
  a: Float64Array,
  rows: ArrayLike<number>,
  cols: ArrayLike<number>,
  channels: number,
  blocks: number,
): Float64Array {
  if (blocks === 1) return a;
  const size = channels / blocks;
  const blockOf = (channel: number) => Math.floor(channel / size);
  for (let i = 0; i < rows.length; i++) {
    const block = blockOf(rows[i]);
    for (let j = 0; j < cols.length; j++) {
      if (blockOf(cols[j]) !== block) a[i * cols.length + j] = 0;
    }
  }
  return a;
}

/** 0, 1, ..., n - 1. */
export const range = (n: number): Uint32Array => Uint32Array.from({ length: n }, (_, i) => i);
