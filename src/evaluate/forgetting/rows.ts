const { abs, exp, log, max } = Math;

/** Probabilities below this count as this. */
const LEAST = 1e-12;

/**
 * Reads the predicted distributions of a model, row by row, as natural logs of probabilities.
 * @param scores [n, classes]: probabilities when every row is a distribution (of sum 1 ± 0.001), otherwise
 *   logits. A single row of logits such as [1, 0, 0] could be either, so it is not decided row by row.
 */
export function logProbabilityRows(
  scores: Float32Array,
  classes: number,
): (row: number) => Float64Array {
  if (scores.length % classes !== 0) throw new Error(`rows of ${classes} out of ${scores.length}`);
  const logs = areProbabilities(scores, classes) ? logsOf : logSoftmax;
  return (row) => logs(scores.subarray(row * classes, (row + 1) * classes));
}

/** What the numbers in the rows of a model's output are. */
export type ScoreKind = 'logits' | 'probabilities';

/**
 * Log-probabilities of rows, in the place of scores of either kind. As they are never above 0, they are
 * read as logits wherever scores are taken, and mean the same distributions.
 */
export function toLogProbabilities(
  scores: Float32Array,
  classes: number,
  kind: ScoreKind,
): Float32Array {
  const logs = kind === 'probabilities' ? logsOf : logSoftmax;
  const result = new Float32Array(scores.length);
  for (let at = 0; at < scores.length; at += classes)
    result.set(logs(scores.subarray(at, at + classes)), at);
  return result;
}

/**
 * Whether the largest score of a row is that of `label`; of equal ones the first counts as the largest.
 * A row with NaN is never right.
 */
export function isRight(row: ArrayLike<number>, label: number): boolean {
  for (let i = 0; i < row.length; i++)
    if (!(row[i] <= row[label]) || (row[i] === row[label] && i < label)) return false;
  return true;
}

/** Whether every row is a distribution, of sum 1 ± 0.001. */
export function areProbabilities(scores: Float32Array, classes: number): boolean {
  for (let at = 0; at < scores.length; at += classes) {
    let total = 0;
    for (let i = at; i < at + classes; i++) {
      if (!(scores[i] >= 0)) return false;
      total += scores[i];
    }
    if (abs(total - 1) >= 1e-3) return false;
  }
  return true;
}

const logsOf = (row: Float32Array) => Float64Array.from(row, (p) => log(max(p, LEAST)));

function logSoftmax(row: Float32Array): Float64Array {
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of row) if (value > largest) largest = value;
  let sum = 0;
  for (const value of row) sum += exp(value - largest);
  const normalizer = largest + log(sum);
  return Float64Array.from(row, (value) => value - normalizer);
}
