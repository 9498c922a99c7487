/**
 * Backward elimination of channels at their exact cost to the next layer (optimal brain surgeon).
 *
 *   C      [N, N] covariance of the channels, made definite by a ridge
 *   Q      [N, N] what the consumers see: Q[i, j] = Σ a'ₚ²·V[p, i]·V[p, j] over outputs p and taps
 *   P      C⁻¹ of the channels that are left
 *   S      the least-squares mixing matrix of the channels that are left (see mixing.ts)
 *   A      SᵀQS
 *
 * The best replacement of channel m by the others has residual variance 1/Pₘₘ and reaches the
 * consumers through column m of S, so removing it adds Aₘₘ/Pₘₘ to the expected squared error of their
 * outputs. Then S loses S[:, m]·v, v = P[m, :]/Pₘₘ. Only A = SᵀQS is needed of S, so A is updated in
 * its place: O(N²) per removal.
 */
import { choleskyInPlace, inverse } from '../../linalg/cholesky.js';
import { symmetricProduct } from '../../linalg/matrix.js';
import { blockNumbers, type Limits, Remaining } from './limits.js';
import { type AxisView, range } from './mixing.js';

/** One tensor that carries the channels, and what reads it. */
export interface ChannelView {
  /** [N, N] */
  covariance: Float64Array;
  /** Q [N, N] */
  importance: Float64Array;
}

export interface EliminationOptions {
  keep: number;
  /** Of the mean variance, added to every variance. */
  ridge?: number;
  limits?: Limits;
}

export interface Elimination {
  /** Removed channels, first removed first. */
  order: Uint32Array;
  /** What each removal adds to the damage. */
  costs: Float64Array;
  /** The kept channels, ascending. */
  kept: Uint32Array;
  /**
   * Σ costs: the expected squared error of the consumers' outputs by their expected square, without
   * bias; of several views, the sum over them.
   */
  damage: number;
}

/**
 * Removes, one by one, the channel of least cost, the lowest of equals, until `keep` are left, or no
 * other may go.
 * Channels that several tensors share (a residual stream) have one view of each tensor.
 * @returns undefined when a covariance is not positive semidefinite.
 */
export function eliminate(
  channels: number,
  views: readonly ChannelView[],
  { keep, ridge = 1e-3, limits = {} }: EliminationOptions,
): Elimination | undefined {
  const states: State[] = [];
  for (const view of views) {
    const state = start(view, channels, ridge, limits);
    if (!state) return undefined;
    states.push(state);
  }
  const alive = range(channels);
  const left = new Remaining(channels, keep, limits);
  const order: number[] = [];
  const costs: number[] = [];
  let damage = 0;
  for (let count = channels; count > keep; count--) {
    const remaining = alive.subarray(0, count);
    const { position, cost } = cheapest(states, channels, remaining, left);
    if (position < 0) break;
    const removed = remaining[position];
    left.remove(removed);
    alive.copyWithin(position, position + 1, count);
    for (const state of states) remove(state, channels, remaining.subarray(0, -1), removed);
    order.push(removed);
    costs.push(cost);
    damage += cost;
  }
  return {
    order: Uint32Array.from(order),
    costs: Float64Array.from(costs),
    kept: alive.slice(0, channels - order.length),
    damage,
  };
}

interface State {
  p: Float64Array;
  a: Float64Array;
  /** 1 / Σ Q∘C, or 0 where nothing reaches the consumers. */
  weight: number;
}

function start(
  { covariance, importance }: ChannelView,
  n: number,
  ridge: number,
  limits: Limits,
): State | undefined {
  let total = 0;
  let trace = 0;
  for (let k = 0; k < covariance.length; k++) total += covariance[k] * importance[k];
  for (let i = 0; i < n; i++) trace += covariance[i * (n + 1)];
  const c = covariance.slice();
  const block = blockNumbers(n, limits);
  if (block)
    for (let k = 0; k < c.length; k++) if (block[Math.floor(k / n)] !== block[k % n]) c[k] = 0;
  // Channels that never vary are as good as any of each other.
  const added = trace > 0 ? (ridge * trace) / n : 1;
  for (let i = 0; i < n; i++) c[i * (n + 1)] += added;
  if (!choleskyInPlace(c, n)) return undefined;
  return { p: inverse(c, n), a: importance.slice(), weight: total > 0 ? 1 / total : 0 };
}

function cheapest(
  states: readonly State[],
  n: number,
  alive: Uint32Array,
  left: Remaining,
): { position: number; cost: number } {
  let position = -1;
  let cost = Infinity;
  for (let k = 0; k < alive.length; k++) {
    if (!left.mayGo(alive[k])) continue;
    const diagonal = alive[k] * (n + 1);
    let sum = 0;
    for (const { a, p, weight } of states) sum += (weight * a[diagonal]) / p[diagonal];
    if (sum < cost || position < 0) {
      position = k;
      cost = sum;
    }
  }
  return { position, cost };
}

/**
 * Takes channel m out of P, and out of S in A: A ← EᵀAE with E = I - eₘ·v. Both are symmetric: only
 * their lower triangles are kept up.
 */
function remove({ p, a }: State, n: number, alive: Uint32Array, m: number): void {
  const pivot = p[m * (n + 1)];
  const central = a[m * (n + 1)];
  const read = rowOf(a, n, m);
  const row = rowOf(p, n, m);
  const v = row.map((x) => x / pivot);
  for (let k = 0; k < alive.length; k++) {
    const i = alive[k];
    const correction = read[i] - v[i] * central;
    for (let l = 0; l <= k; l++) {
      const j = alive[l];
      p[i * n + j] -= v[i] * row[j];
      a[i * n + j] -= v[i] * read[j] + correction * v[j];
    }
  }
}

/** Row m of a symmetric matrix, from its lower triangle. */
const rowOf = (lower: Float64Array, n: number, m: number): Float64Array =>
  new Float64Array(n).map((_, i) => lower[i < m ? m * n + i : i * n + m]);

/**
 * Q [N, N] of a consumer: Σ scale[p]²·V[p, i]·V[p, j] over outputs p and taps. V is
 * [outer, channels, inner]; `scale` [outer], of the BatchNormalization behind it, is 1 when absent.
 * A grouped consumer's axis has N/groups channels, and Q is block diagonal.
 */
export function importance(
  v: Float64Array,
  { outer, channels, inner }: AxisView,
  scale?: Float64Array,
  groups = 1,
): Float64Array {
  const n = channels * groups;
  const q = new Float64Array(n * n);
  const part = outer / groups;
  for (let group = 0; group < groups; group++) {
    const rows = new Float64Array(channels * part * inner);
    for (let p = 0; p < part; p++) {
      const output = group * part + p;
      const factor = scale ? scale[output] : 1;
      for (let i = 0; i < channels; i++) {
        const source = (output * channels + i) * inner;
        const target = (i * part + p) * inner;
        for (let t = 0; t < inner; t++) rows[target + t] = factor * v[source + t];
      }
    }
    const block = symmetricProduct(rows, rows, channels, part * inner);
    if (groups === 1) return block;
    for (let i = 0; i < channels; i++) {
      const row = (group * channels + i) * n + group * channels;
      q.set(block.subarray(i * channels, (i + 1) * channels), row);
    }
  }
  return q;
}
