import type { LinearAlgebra } from '../../runtime/linear-algebra.js';
import { factorHessian, inverseFactorDiagonal } from './cholesky.js';
import { type DsnotOptions, StopCode } from './dsnot.js';
import type { OutputLoss } from './loss.js';
import { magnitudeLayerMask } from './masks.js';
import type { Pattern } from './pattern.js';
import type { RowPool } from './row-pool.js';
import type { Criterion } from './scores.js';
import { sparseGpt } from './sparsegpt.js';
import type { InputStatistics } from './statistics.js';

/** How the layers of one job are pruned. */
export interface PruneOptions {
  pattern: Pattern;
  criterion: Criterion;
  /** Refine the mask with DSnoT; its threshold is in the units of `thresholdUnit`. */
  dsnot?: DsnotOptions;
  thresholdUnit: 'sample' | 'token';
  /** Make every swap that DSnoT proposes, or only those that lower the output error on sampled tokens. */
  accept: 'always' | 'loss';
  /** SparseGPT's weight update. */
  update: boolean;
}

/** A weight matrix, or one group of a convolution's, and what calibration says of its input. */
export interface PruneTask {
  /** [rows, cols] */
  w: Float32Array;
  rows: number;
  cols: number;
  /** Absent when there is no calibration data: magnitude only. */
  statistics?: InputStatistics;
  /** [n, cols] token rows to measure the output error on. */
  samples?: Float32Array;
  /** Constant factor of the layer's product. */
  alpha: number;
}

/** Relative error of a layer's output, ‖X(W - W')ᵀ‖ / ‖XWᵀ‖, and the part of it that is the mean's. */
export interface OutputError {
  total: number;
  mean: number;
}

export interface PrunedLayer {
  /** [rows, cols] 1 = keep. */
  mask: Uint8Array;
  /** [rows, cols] updated weights, with `update`. */
  weights?: Float32Array;
  rowsRefined: number;
  swaps: number;
  /** Swaps refused because they would have made the output error larger. */
  refused: number;
  /** Error of the initial mask and of the final one; absent without calibration data. */
  initialError?: OutputError;
  finalError?: OutputError;
  notes: string[];
}

/** Prunes one layer. Rows are independent (but for SparseGPT's update), so `pool` may split them. */
export async function pruneLayer(
  task: PruneTask,
  options: PruneOptions,
  tools: { pool: RowPool; algebra?: LinearAlgebra },
): Promise<PrunedLayer> {
  const { w, rows, cols, alpha } = task;
  const notes: string[] = [];
  let { criterion } = options;
  const factor =
    criterion === 'sparsegpt' && task.statistics?.hessian
      ? factorHessian(task.statistics.hessian, cols)
      : undefined;
  if (criterion === 'sparsegpt' && !factor) {
    criterion = 'wanda';
    notes.push('Hessian not positive definite: Wanda scores used instead of SparseGPT');
  } else if (factor && factor.damping > 0.01) {
    notes.push(`Hessian needed a damping of ${factor.damping}`);
  }
  const untouched = { rowsRefined: 0, swaps: 0, refused: 0, notes };

  if (options.update && factor) {
    const { mask, weights } = sparseGpt(w, rows, factor, options.pattern);
    const finalError = await outputError(task, weights, tools.algebra);
    return { ...untouched, mask, weights, initialError: finalError, finalError };
  }
  if (criterion === 'magnitude' && !options.dsnot) {
    const mask = magnitudeLayerMask(w, rows, cols, options.pattern);
    const finalError = await outputError(task, masked(w, mask), tools.algebra);
    return { ...untouched, mask, initialError: finalError, finalError };
  }

  const statistics = task.statistics && scaled(task.statistics, alpha, options.thresholdUnit);
  const shared = {
    w,
    rows,
    cols,
    pattern: options.pattern,
    criterion,
    statistics,
    inverseDiagonal: factor && inverseFactorDiagonal(factor),
  };
  if (!options.dsnot) {
    const { mask } = await tools.pool.maskRows(shared);
    const finalError = await outputError(task, masked(w, mask), tools.algebra);
    return { ...untouched, mask, initialError: finalError, finalError };
  }

  const initial = await tools.pool.maskRows(shared);
  const pruned = masked(w, initial.mask);
  const initialError = await outputError(task, pruned, tools.algebra);
  const loss =
    options.accept === 'loss' ? await outputLoss(task, pruned, tools.algebra) : undefined;
  const { mask, trace } = await tools.pool.maskRows({ ...shared, dsnot: options.dsnot, loss });
  if (!trace) throw new Error('refinement left no trace');
  const finalError = await outputError(task, masked(w, mask), tools.algebra);
  const exhausted = trace.stop.reduce((n, code) => n + (code === StopCode.exhausted ? 1 : 0), 0);
  if (exhausted > 0) notes.push(`${exhausted} of ${rows} rows ran out of candidates to swap`);
  return {
    mask,
    rowsRefined: trace.swaps.reduce((n, s) => n + (s > 0 ? 1 : 0), 0),
    swaps: trace.swaps.reduce((n, s) => n + s, 0),
    refused: trace.refused.reduce((n, s) => n + s, 0),
    initialError,
    finalError,
    notes,
  };
}

/** Statistics in the units that refinement is to see: the product's constant factor, and sums per token if so asked. */
function scaled(
  statistics: InputStatistics,
  alpha: number,
  unit: 'sample' | 'token',
): InputStatistics {
  const factor = unit === 'token' ? (alpha * statistics.samples) / statistics.tokens : alpha;
  return factor === 1 ? statistics : { ...statistics, sum: statistics.sum.map((s) => s * factor) };
}

const masked = (w: Float32Array, mask: Uint8Array): Float32Array =>
  w.map((v, i) => (mask[i] ? v : 0));

/** What the initial mask takes from the output of each row on the sampled tokens. */
async function outputLoss(
  { w, cols, samples }: PruneTask,
  pruned: Float32Array,
  algebra?: LinearAlgebra,
): Promise<OutputLoss | undefined> {
  if (!samples || !algebra) return undefined;
  const count = samples.length / cols;
  const byChannel = new Float32Array(samples.length);
  for (let t = 0, i = 0; t < count; t++)
    for (let c = 0; c < cols; c++, i++) byChannel[c * count + t] = samples[i];
  const taken = difference(w, pruned);
  return {
    count,
    samples: byChannel,
    residual: await algebra.timesTransposed(taken, samples, cols),
  };
}

const difference = (a: Float32Array, b: Float32Array): Float32Array => a.map((v, i) => v - b[i]);

async function outputError(
  { w, rows, cols, samples, statistics }: PruneTask,
  pruned: Float32Array,
  algebra?: LinearAlgebra,
): Promise<OutputError | undefined> {
  if (!samples || !algebra || !statistics) return undefined;
  const taken = difference(w, pruned);
  const squares = async (matrix: Float32Array) =>
    sumOfSquares(await algebra.timesTransposed(samples, matrix, cols));
  const output = await squares(w);
  if (output === 0) return { total: 0, mean: 0 };
  // The mean error is known exactly, from the sums over all tokens; scaled to the sampled rows.
  const perToken = statistics.samples / statistics.tokens;
  let mean = 0;
  for (let r = 0, i = 0; r < rows; r++) {
    let row = 0;
    for (let c = 0; c < cols; c++, i++) row += taken[i] * statistics.sum[c] * perToken;
    mean += row * row;
  }
  const count = samples.length / cols;
  return {
    total: Math.sqrt((await squares(taken)) / output),
    mean: Math.sqrt((mean * count) / output),
  };
}

function sumOfSquares(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  return sum;
}
