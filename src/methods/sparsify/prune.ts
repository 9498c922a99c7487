import type { LinearAlgebra } from '../../runtime/linear-algebra.js';
import type { InputStatistics } from '../calibration/statistics.js';
import { type HessianFactor, inverseFactorDiagonal } from './cholesky.js';
import { type DsnotOptions, StopCode } from './dsnot.js';
import type { LayerTask } from './layer.js';
import { magnitudeLayerMask } from './masks.js';
import { type OutputError, OutputMeter } from './output-meter.js';
import type { Pattern } from './pattern.js';
import type { RowPool } from './row-pool.js';
import type { Criterion } from './scores.js';
import { sparseGpt } from './sparsegpt.js';

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

/** What pruning works with, from one layer to the next. */
export interface PruneTools {
  pool: RowPool;
  /** Absent without calibration data. */
  algebra?: LinearAlgebra;
  factor: (hessian: Float32Array) => HessianFactor | undefined;
}

/** Prunes one layer. Rows are independent (but for SparseGPT's update), so `pool` may split them. */
export async function pruneLayer(
  task: PruneTask,
  options: PruneOptions,
  tools: PruneTools,
): Promise<PrunedLayer> {
  const { w, rows, cols, alpha } = task;
  const notes: string[] = [];
  const factor = hessianFactor(task, options, tools, notes);
  const meter = await OutputMeter.of(task, tools.algebra);
  const finish = async (mask: Uint8Array, weights?: Float32Array): Promise<PrunedLayer> => {
    const error = await meter?.error(weights ? difference(w, weights) : prunedOf(w, mask));
    return {
      mask,
      weights,
      rowsRefined: 0,
      swaps: 0,
      refused: 0,
      initialError: error,
      finalError: error,
      notes,
    };
  };

  if (options.update && factor) {
    const { mask, weights } = sparseGpt(w, rows, factor, options.pattern);
    return finish(mask, weights);
  }
  if (options.criterion === 'magnitude' && !options.dsnot) {
    return finish(magnitudeLayerMask(w, rows, cols, options.pattern));
  }
  const layer: LayerTask = {
    w,
    rows,
    cols,
    pattern: options.pattern,
    criterion: options.criterion === 'sparsegpt' && !factor ? 'wanda' : options.criterion,
    statistics: task.statistics && scaled(task.statistics, alpha, options.thresholdUnit),
    inverseDiagonal: factor && inverseFactorDiagonal(factor),
  };
  const initial = await tools.pool.maskRows(layer);
  if (!options.dsnot) return finish(initial.mask);

  const taken = prunedOf(w, initial.mask);
  const loss = meter && { gram: meter.gram, gradient: await meter.gradient(taken) };
  const initialError = loss && meter.errorFrom(taken, loss.gradient);
  const gated = options.accept === 'loss' ? loss : undefined;
  const { mask, trace } = await tools.pool.maskRows({
    ...layer,
    dsnot: options.dsnot,
    loss: gated,
  });
  if (!trace) throw new Error('refinement left no trace');
  const left = prunedOf(w, mask);
  const finalError = gated ? meter?.errorFrom(left, gated.gradient) : await meter?.error(left);
  const exhausted = count(trace.stop, (code) => code === StopCode.exhausted);
  if (exhausted > 0) notes.push(`${exhausted} of ${rows} rows ran out of candidates to swap`);
  return {
    mask,
    rowsRefined: count(trace.swaps, (n) => n > 0),
    swaps: sum(trace.swaps),
    refused: sum(trace.refused),
    initialError,
    finalError,
    notes,
  };
}

/** The Hessian's factor, where the criterion asks for one; without it Wanda's scores stand in. */
function hessianFactor(
  { statistics }: PruneTask,
  { criterion }: PruneOptions,
  tools: PruneTools,
  notes: string[],
) {
  if (criterion !== 'sparsegpt' || !statistics?.hessian) return undefined;
  const factor = tools.factor(statistics.hessian);
  if (!factor) notes.push('Hessian not positive definite: Wanda scores used instead of SparseGPT');
  else if (factor.damping > 0.01) notes.push(`Hessian needed a damping of ${factor.damping}`);
  return factor;
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

/** The weights that a mask prunes, 0 for those it keeps. */
function prunedOf(w: Float32Array, mask: Uint8Array): Float32Array {
  const pruned = new Float32Array(w.length);
  for (let i = 0; i < w.length; i++) if (mask[i] === 0) pruned[i] = w[i];
  return pruned;
}

function difference(a: Float32Array, b: Float32Array): Float32Array {
  const result = new Float32Array(a.length);
  for (let i = 0; i < a.length; i++) result[i] = a[i] - b[i];
  return result;
}

function count(values: Uint8Array | Uint32Array, test: (value: number) => boolean): number {
  let n = 0;
  for (const value of values) if (test(value)) n++;
  return n;
}

const sum = (values: Uint32Array): number => values.reduce((n, value) => n + value, 0);
