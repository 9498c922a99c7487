import type { InputStatistics } from '../calibration/statistics.js';

const { abs, fround } = Math;

/** What ranks the weights of a row; the lowest scores are pruned first. */
export type Criterion = 'magnitude' | 'wanda' | 'sparsegpt';

/**
 * Scores one row of weights in float32 into `scores` [cols]:
 * magnitude |W|, Wanda |W|·√scaler (arXiv 2306.11695), SparseGPT W²/diag(U)² (arXiv 2301.00774).
 */
export type RowScorer = (w: Float32Array, start: number, scores: Float32Array) => void;

export interface ScoreInputs {
  statistics?: Pick<InputStatistics, 'scaler'>;
  /** diag(U) [cols], from `inverseFactorDiagonal`. */
  inverseDiagonal?: Float32Array;
}

export function rowScorer(criterion: Criterion, inputs: ScoreInputs): RowScorer {
  switch (criterion) {
    case 'magnitude':
      return scoreMagnitude;
    case 'wanda': {
      if (!inputs.statistics) throw new Error('the Wanda score needs statistics');
      const norms = inputNorms(inputs.statistics.scaler);
      return (w, start, scores) => {
        for (let j = 0; j < scores.length; j++) scores[j] = abs(w[start + j]) * norms[j];
      };
    }
    case 'sparsegpt': {
      if (!inputs.inverseDiagonal) throw new Error('the SparseGPT score needs diag(U)');
      const squares = inputs.inverseDiagonal.map((u) => u * u);
      return (w, start, scores) => {
        for (let j = 0; j < scores.length; j++) {
          scores[j] = fround(w[start + j] * w[start + j]) / squares[j];
        }
      };
    }
  }
}

/** √scaler in float32: the norm of each input channel. */
export function inputNorms(scaler: Float32Array): Float32Array {
  return scaler.map(Math.sqrt);
}

function scoreMagnitude(w: Float32Array, start: number, scores: Float32Array): void {
  for (let j = 0; j < scores.length; j++) scores[j] = abs(w[start + j]);
}
