import { logProbabilityRows } from './rows.js';

const { abs, exp, log1p, max } = Math;

/** Fewer members or non-members say nothing. */
const MIN_SAMPLES = 20;

/**
 * Entropy of the predicted distribution of every sample, in nats.
 * @param scores [n, classes], logits or probabilities
 */
export function entropies(scores: Float32Array, classes: number): Float64Array {
  const logProbabilities = logProbabilityRows(scores, classes);
  const result = new Float64Array(scores.length / classes);
  for (let i = 0; i < result.length; i++) {
    for (const log of logProbabilities(i)) {
      const probability = exp(log);
      if (probability !== 0) result[i] -= probability * log;
    }
  }
  return result;
}

/**
 * Cross-entropy of every sample, in nats.
 * @param scores [n, classes], logits or probabilities
 * @param labels [n], class numbers
 */
export function crossEntropies(
  scores: Float32Array,
  classes: number,
  labels: ArrayLike<number>,
): Float64Array {
  const logProbabilities = logProbabilityRows(scores, classes);
  return Float64Array.from(
    { length: scores.length / classes },
    (_, i) => -logProbabilities(i)[labels[i]],
  );
}

/** One number for every sample, smaller for what the model was trained on: entropy, loss, error. */
export interface Signals {
  /** The retain set, which the model was trained on. */
  members: Float64Array;
  /** Data that it never saw, as a test set. */
  nonMembers: Float64Array;
  forget: Float64Array;
}

export interface MembershipInference {
  /**
   * Share of the forget set that the attack takes for training data. To be compared with that of a
   * retrained model: less is not better as such.
   */
  forgetRate: number;
  /** AUC of members against non-members: 0.5 when the attack can tell nothing at all. */
  attackAuc: number;
  /** AUC of the forget set against non-members: 0.5 when it looks like data never seen. */
  forgetAuc: number;
}

/**
 * Membership inference as in the authors' code of SSD (arXiv 2308.07707): a logistic regression on the
 * signal tells members from non-members, both sides with equal weight, and is asked about the forget set.
 * @returns null when there are fewer than 20 members or non-members, no forget set, or signals that are
 *   not finite
 */
export function membershipInference({
  members,
  nonMembers,
  forget,
}: Signals): MembershipInference | null {
  if (members.length < MIN_SAMPLES || nonMembers.length < MIN_SAMPLES || forget.length === 0)
    return null;
  if (![members, nonMembers, forget].every((signal) => signal.every(Number.isFinite))) return null;
  // The authors ask scikit-learn for C = 1 in the multinomial form: its penalty, on two opposite
  // coefficients of half the size, is half as strong as on one.
  const { coefficient, intercept } = fitLogistic(members, nonMembers, 2);
  const called = forget.reduce((sum, x) => sum + Number(coefficient * x + intercept > 0), 0);
  return {
    forgetRate: called / forget.length,
    attackAuc: areaUnderCurve(members, nonMembers),
    forgetAuc: areaUnderCurve(forget, nonMembers),
  };
}

/** Calls x positive where `coefficient·x + intercept > 0`. */
export interface Logistic {
  coefficient: number;
  intercept: number;
}

/**
 * Logistic regression in one variable with both classes of equal weight, by Newton's method. Minimizes
 * w²/2 + c·Σ s·ln(1 + exp(-y·(w·x + b))), y = ±1, s = n/(2·n_class); b is not penalized.
 */
export function fitLogistic(positives: Float64Array, negatives: Float64Array, c: number): Logistic {
  const half = (c * (positives.length + negatives.length)) / 2;
  const sides = [
    { xs: positives, y: 1, weight: half / positives.length },
    { xs: negatives, y: -1, weight: half / negatives.length },
  ];
  const objective = (w: number, b: number) => {
    let sum = (w * w) / 2;
    for (const { xs, y, weight } of sides)
      for (const x of xs) sum += weight * softplus(-y * (w * x + b));
    return sum;
  };
  let w = 0;
  let b = 0;
  let value = objective(w, b);
  for (let iteration = 0; iteration < 100; iteration++) {
    // Gradient [gw, gb] and Hessian [[hww, hwb], [hwb, hbb]].
    let [gw, gb, hww, hwb, hbb] = [w, 0, 1, 0, 0];
    for (const { xs, y, weight } of sides)
      for (const x of xs) {
        const wrong = 1 / (1 + exp(y * (w * x + b)));
        const slope = -y * weight * wrong;
        const curvature = weight * wrong * (1 - wrong);
        gw += slope * x;
        gb += slope;
        hww += curvature * x * x;
        hwb += curvature * x;
        hbb += curvature;
      }
    const determinant = hww * hbb - hwb * hwb;
    if (!(determinant > 0)) break;
    const dw = (hbb * gw - hwb * gb) / determinant;
    const db = (hww * gb - hwb * gw) / determinant;
    // Far from the minimum a whole step can overshoot.
    let step = 1;
    let next = objective(w - dw, b - db);
    while (!(next <= value) && step > 1e-9) {
      step /= 2;
      next = objective(w - step * dw, b - step * db);
    }
    if (!(next <= value)) break;
    w -= step * dw;
    b -= step * db;
    const decreased = value - next;
    value = next;
    if (decreased <= 1e-14 * value) break;
  }
  return { coefficient: w, intercept: b };
}

/** ln(1 + exp(x)), without overflow. */
const softplus = (x: number) => max(x, 0) + log1p(exp(-abs(x)));

/**
 * The chance that a positive has the smaller signal of a pair; ties count half. Area under the ROC curve
 * of the negated signal.
 */
export function areaUnderCurve(positives: Float64Array, negatives: Float64Array): number {
  const sorted = positives.slice().sort();
  const others = negatives.slice().sort();
  let below = 0; // others below the positive
  let upTo = 0; // others up to and with it
  let wins = 0;
  for (const x of sorted) {
    while (below < others.length && others[below] < x) below++;
    while (upTo < others.length && others[upTo] <= x) upTo++;
    wins += others.length - (below + upTo) / 2;
  }
  return wins / (sorted.length * others.length);
}
