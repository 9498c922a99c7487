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

function areProbabilities(scores: Float32Array, classes: number): boolean {
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
