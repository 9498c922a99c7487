import { logProbabilityRows } from './rows.js';

const { abs, exp, log, sqrt } = Math;

/**
 * Activation distance: the mean over samples of the L2 norm of the difference between the predicted
 * distributions of two models; from 0 to √2.
 * @param a, b [n, classes], logits or probabilities of the same samples
 */
export const activationDistance = (a: Float32Array, b: Float32Array, classes: number): number =>
  meanOverRows(a, b, classes, (logP, logQ) => {
    let squares = 0;
    for (let i = 0; i < classes; i++) squares += (exp(logP[i]) - exp(logQ[i])) ** 2;
    return sqrt(squares);
  });

/**
 * Mean over samples of the Kullback-Leibler divergence KL(p ‖ q), in nats.
 * @param p, q [n, classes], logits or probabilities of the same samples
 */
export const meanDivergence = (p: Float32Array, q: Float32Array, classes: number): number =>
  meanOverRows(p, q, classes, divergence);

/**
 * Zero retrain forgetting score (arXiv 2205.08096): 1 - the mean over samples of the Jensen-Shannon
 * divergence between a model and one that knows nothing (of random weights). With natural logarithms it
 * goes from 1 - ln 2 to 1; 1 on the forget set when the model knows no more of it than the other.
 *
 * This is the textbook divergence. Public code computes another one, with KL(m ‖ p) and KL(m ‖ q),
 * averaged over classes too, which has no bound.
 * @param model, incompetent [n, classes], logits or probabilities of the same samples
 */
export const zeroRetrainForgetting = (
  model: Float32Array,
  incompetent: Float32Array,
  classes: number,
): number => 1 - meanOverRows(model, incompetent, classes, jensenShannon);

function jensenShannon(logP: Float64Array, logQ: Float64Array): number {
  const logM = logP.map((p, i) => log(exp(p) + exp(logQ[i])) - Math.LN2);
  return (divergence(logP, logM) + divergence(logQ, logM)) / 2;
}

/** KL(p ‖ q) of logs of probabilities; what p rules out adds nothing. */
function divergence(logP: Float64Array, logQ: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < logP.length; i++) {
    const p = exp(logP[i]);
    if (p !== 0) sum += p * (logP[i] - logQ[i]);
  }
  return Math.max(0, sum);
}

/** The mean of `measure` over pairs of rows, given as logs of probabilities; NaN without rows. */
function meanOverRows(
  a: Float32Array,
  b: Float32Array,
  classes: number,
  measure: (logA: Float64Array, logB: Float64Array) => number,
): number {
  if (a.length !== b.length) throw new Error(`${a.length} scores and ${b.length}`);
  const [rowsA, rowsB] = [logProbabilityRows(a, classes), logProbabilityRows(b, classes)];
  const rows = a.length / classes;
  let sum = 0;
  for (let i = 0; i < rows; i++) sum += measure(rowsA(i), rowsB(i));
  return sum / rows;
}

/** Accuracies in [0, 1]. */
export interface Accuracies {
  forget: number;
  retain: number;
  test: number;
}

/**
 * Tug of war (ToW, arXiv 2406.01257): the product of 1 - |difference| of the accuracies of an unlearned
 * and a retrained model; from 0 to 1, which means that they behave alike.
 */
export const tugOfWar = (unlearned: Accuracies, retrained: Accuracies): number =>
  (1 - abs(unlearned.forget - retrained.forget)) *
  (1 - abs(unlearned.retain - retrained.retain)) *
  (1 - abs(unlearned.test - retrained.test));
