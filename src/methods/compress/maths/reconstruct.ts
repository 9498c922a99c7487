/**
 * The mixing matrix that is best for the next layer, from the moments of what it reads.
 *
 *   y, ỹ     [N] channels of the original, [n] of the compressed tensor
 *   S, S0, V  see mixing.ts
 *   t         mean variance of ỹ
 *
 *   S = (Cov(y, ỹ) + λ·t·S0)·(Cov(ỹ) + λ·t·I)⁻¹
 *
 * minimises E‖V·(y - S·ỹ)‖² for every V, also over k×k kernels if all channels vary alike in space.
 * What remains of the mean, δ = E y - S·E ỹ, is a constant that the consumer's bias takes.
 */
import { submatrix } from '../../linalg/matrix.js';
import { type AxisView, dropMatrix, keepBlocks, range } from './mixing.js';
import type { CompressedMoments, Moments } from './moments.js';
import { type Mixing, solveMixing } from './udfc.js';

export interface ReconstructOptions {
  /** λ */
  ridge?: number;
  /** Groups of the consumer: S is block diagonal. */
  blocks?: number;
}

export interface Reconstruction extends Mixing {
  /** δ [N] */
  delta: Float64Array;
}

/**
 * S and δ. Without `compressed` ỹ is y in the channels of K, and their rows of S are exactly those of
 * S0.
 */
export function reconstruct(
  original: Moments,
  kept: Uint32Array,
  compressed?: CompressedMoments,
  { ridge = 1e-3, blocks = 1 }: ReconstructOptions = {},
): Reconstruction {
  const channels = original.mean.length;
  const n = kept.length;
  const all = range(channels);
  const cross = compressed
    ? compressed.cross.slice()
    : submatrix(original.covariance, channels, all, kept);
  const gram = compressed
    ? compressed.covariance.slice()
    : submatrix(original.covariance, channels, kept, kept);
  const mean = compressed
    ? compressed.mean
    : Float64Array.from(kept, (channel) => original.mean[channel]);
  keepBlocks(cross, all, kept, channels, blocks);
  keepBlocks(gram, kept, kept, channels, blocks);
  let trace = 0;
  for (let m = 0; m < n; m++) trace += gram[m * (n + 1)];
  const s0 = dropMatrix(kept, channels);
  const system = { cross, gram, s0, kept, keepUnitRows: !compressed };
  const mixing = solveMixing(system, (ridge * trace) / n, trace / n);
  const delta = original.mean.map((value, i) => {
    let rest = value;
    for (let m = 0; m < n; m++) rest -= mixing.s[i * n + m] * mean[m];
    return rest;
  });
  return { ...mixing, delta };
}

/**
 * Σ over channels and taps of V·δ [outer]: what is missing from the consumer's output on average, away
 * from zero-padded borders. Add it to its bias, or subtract it from the mean of the
 * BatchNormalization behind it. V is [outer, channels, inner]; a grouped consumer's axis has N/groups.
 */
export function outputShift(
  v: Float64Array,
  { outer, channels, inner }: AxisView,
  delta: Float64Array,
  groups = 1,
): Float64Array {
  const shift = new Float64Array(outer);
  for (let p = 0, k = 0; p < outer; p++) {
    const first = Math.floor((p * groups) / outer) * channels;
    for (let i = 0; i < channels; i++) {
      let sum = 0;
      for (let t = 0; t < inner; t++) sum += v[k++];
      shift[p] += sum * delta[first + i];
    }
  }
  return shift;
}
