import type { LinearAlgebra } from '../../runtime/linear-algebra.js';
import { factorHessian, inverseFactorDiagonal } from './cholesky.js';
import { type DsnotOptions, StopCode } from './dsnot.js';
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
  /** Keep a row's refined mask only where it lowers the output error on the kept token rows. */
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
  /** Rows whose refinement was refused because it made the output error larger. */
  rowsRefused: number;
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
  const untouched = { rowsRefined: 0, swaps: 0, rowsRefused: 0, notes };

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
  const initial = await tools.pool.maskRows(shared);
  const initialError = await outputError(task, masked(w, initial.mask), tools.algebra);
  if (!options.dsnot)
    return { ...untouched, mask: initial.mask, initialError, finalError: initialError };

  const { mask, trace } = await tools.pool.maskRows({ ...shared, dsnot: options.dsnot });
  if (!trace) throw new Error('refinement left no trace');
  const refused =
    options.accept === 'loss'
      ? await refuseWorseRows(task, initial.mask, mask, trace.swaps, tools.algebra)
      : 0;
  const finalError = await outputError(task, masked(w, mask), tools.algebra);
  const exhausted = trace.stop.reduce((n, code) => n + (code === StopCode.exhausted ? 1 : 0), 0);
  if (exhausted > 0) notes.push(`${exhausted} of ${rows} rows ran out of candidates to swap`);
  return {
    mask,
    rowsRefined: trace.swaps.reduce((n, s) => n + (s > 0 ? 1 : 0), 0),
    swaps: trace.swaps.reduce((n, s) => n + s, 0),
    rowsRefused: refused,
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

/** Puts back the initial mask of rows that refinement made worse; returns how many. Swaps of those become 0. */
async function refuseWorseRows(
  task: PruneTask,
  initial: Uint8Array,
  refined: Uint8Array,
  swaps: Uint32Array,
  algebra?: LinearAlgebra,
): Promise<number> {
  const { w, rows, cols } = task;
  const before = await rowErrors(task, masked(w, initial), algebra);
  const after = await rowErrors(task, masked(w, refined), algebra);
  if (!before || !after) return 0;
  let refused = 0;
  for (let r = 0; r < rows; r++) {
    if (swaps[r] === 0 || after[r] < before[r]) continue;
    refined.set(initial.subarray(r * cols, (r + 1) * cols), r * cols);
    refused++;
    swaps[r] = 0;
  }
  return refused;
}

/** [rows] Σ over the sampled token rows of the squared output error. */
async function rowErrors(
  { w, rows, cols, samples }: PruneTask,
  pruned: Float32Array,
  algebra?: LinearAlgebra,
) {
  if (!samples || !algebra) return undefined;
  const difference = w.map((v, i) => v - pruned[i]);
  return columnSquares(await algebra.timesTransposed(samples, difference, cols), rows);
}

async function outputError(
  task: PruneTask,
  pruned: Float32Array,
  algebra?: LinearAlgebra,
): Promise<OutputError | undefined> {
  const { w, rows, cols, samples, statistics } = task;
  const errors = await rowErrors(task, pruned, algebra);
  if (!errors || !samples || !algebra || !statistics) return undefined;
  const output = columnSquares(await algebra.timesTransposed(samples, w, cols), rows);
  const total = output.reduce((a, b) => a + b, 0);
  if (total === 0) return { total: 0, mean: 0 };
  // The mean error is known exactly, from the sums over all tokens; scaled to the sampled rows.
  const perToken = statistics.samples / statistics.tokens;
  let mean = 0;
  for (let r = 0, i = 0; r < rows; r++) {
    let row = 0;
    for (let c = 0; c < cols; c++, i++) row += (w[i] - pruned[i]) * statistics.sum[c] * perToken;
    mean += row * row;
  }
  const count = samples.length / cols;
  return {
    total: Math.sqrt(errors.reduce((a, b) => a + b, 0) / total),
    mean: Math.sqrt((mean * count) / total),
  };
}

/** [cols] Σ of squares down the columns of y [n, cols]. */
function columnSquares(y: Float32Array, cols: number): Float64Array {
  const sums = new Float64Array(cols);
  for (let i = 0, c = 0; i < y.length; i++) {
    sums[c] += y[i] * y[i];
    c = c + 1 === cols ? 0 : c + 1;
  }
  return sums;
}
