import type { InputStatistics } from '../calibration/statistics.js';
import type { DsnotOptions, RefinementTrace } from './dsnot.js';
import { RowRefiner } from './dsnot.js';
import { LossGate, type OutputLoss } from './loss.js';
import { RowMasker } from './masks.js';
import type { Pattern } from './pattern.js';
import { patternMisfit } from './pattern.js';
import type { Criterion } from './scores.js';
import { rowScorer } from './scores.js';

/** A layer y = x·Wᵀ whose rows are to be pruned, each to the same sparsity. */
export interface LayerTask {
  /** [rows = outputs, cols = inputs] row-major. */
  w: Float32Array;
  rows: number;
  cols: number;
  pattern: Pattern;
  criterion: Criterion;
  /** For the Wanda criterion and for refinement. */
  statistics?: Pick<InputStatistics, 'scaler' | 'sum' | 'variance'>;
  /** For the SparseGPT criterion: diag(U) [cols], from `inverseFactorDiagonal`. */
  inverseDiagonal?: Float32Array;
  /** Refine the masks with DSnoT. */
  dsnot?: DsnotOptions;
  /** Refine by swaps that lower this loss only. Its gradient is brought up to date. */
  loss?: OutputLoss;
}

export interface LayerMask {
  /** [rows, cols] 1 = keep. */
  mask: Uint8Array;
  /** What refinement did, when it was asked for. */
  trace?: RefinementTrace;
}

/** Throws when the parts of a task do not fit together; that is a mistake of the caller. */
export function checkTask({
  w,
  rows,
  cols,
  pattern,
  statistics,
  inverseDiagonal,
}: LayerTask): void {
  if (w.length !== rows * cols) throw new Error(`${w.length} weights are not [${rows}, ${cols}]`);
  const { scaler, sum, variance } = statistics ?? {};
  for (const vector of [scaler, sum, variance, inverseDiagonal]) {
    if (vector && vector.length !== cols) {
      throw new Error(`${vector.length} values for ${cols} inputs`);
    }
  }
  const misfit = patternMisfit(pattern, cols);
  if (misfit) throw new Error(misfit);
}

/**
 * Masks rows [from, to) of the layer into `result`. Rows do not depend on each other, so any
 * division of them gives the same bytes. A row keeps cols - zerosPerRow weights.
 */
export function maskRowRange(task: LayerTask, result: LayerMask, from: number, to: number): void {
  const { w, cols, pattern } = task;
  const scoreRow = rowScorer(task.criterion, task);
  const masker = new RowMasker(pattern);
  const refiner = rowRefiner(task);
  const scores = new Float32Array(cols);
  const bits = new Int32Array(scores.buffer);
  for (let row = from; row < to; row++) {
    const start = row * cols;
    scoreRow(w, start, scores);
    masker.maskRow(bits, result.mask, start);
    if (refiner && result.trace) {
      refiner.refine(w, scores, result.mask, start, result.trace, row);
    }
  }
}

function rowRefiner({ pattern, statistics, dsnot, loss }: LayerTask): RowRefiner | undefined {
  if (!dsnot) return undefined;
  if (!statistics) throw new Error('DSnoT needs statistics');
  return new RowRefiner(pattern, statistics, dsnot, loss && new LossGate(loss));
}
