const { exp, log, max, log1p } = Math;

/** What makes probabilities of logits: classes that exclude each other, or labels on their own. */
export type Link = 'softmax' | 'sigmoid';

/**
 * Jensen-Shannon divergence in nats between the distributions that two sets of logits stand for, row by
 * row: `½ Σ p (ln p - ln m) + ½ Σ q (ln q - ln m)`, `m = (p + q) / 2`; 0 to ln 2. Of labels on their own
 * the mean over labels. NaN for a row that is not finite.
 * Source: Lin, Divergence Measures Based on the Shannon Entropy, IEEE Trans. Inf. Theory 37(1), 1991.
 * @param p, q [rows, classes]
 * @returns [rows]
 */
export function jensenShannon(
  p: ArrayLike<number>,
  q: ArrayLike<number>,
  classes: number,
  link: Link = 'softmax',
): Float64Array {
  const rows = p.length / classes;
  const divergences = new Float64Array(rows);
  const a = new Float64Array(classes);
  const b = new Float64Array(classes);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    if (link === 'softmax') {
      logSoftmax(p, r * classes, a);
      logSoftmax(q, r * classes, b);
      for (let c = 0; c < classes; c++) sum += halves(a[c], b[c]);
    } else {
      for (let i = r * classes; i < (r + 1) * classes; i++)
        sum +=
          (halves(logSigmoid(p[i]), logSigmoid(q[i])) +
            halves(logSigmoid(-p[i]), logSigmoid(-q[i]))) /
          classes;
    }
    // Rounding may leave a little less than nothing; NaN stays.
    divergences[r] = sum < 0 ? 0 : sum;
  }
  return divergences;
}

/**
 * Shannon entropy in nats, row by row; of labels on their own the mean over labels.
 * @param logits [rows, classes]
 * @returns [rows]
 */
export function entropies(
  logits: ArrayLike<number>,
  classes: number,
  link: Link = 'softmax',
): Float64Array {
  const rows = logits.length / classes;
  const found = new Float64Array(rows);
  const a = new Float64Array(classes);
  const term = (l: number) => (l === Number.NEGATIVE_INFINITY ? 0 : exp(l) * l);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    if (link === 'softmax') {
      logSoftmax(logits, r * classes, a);
      for (let c = 0; c < classes; c++) sum -= term(a[c]);
    } else {
      for (let i = r * classes; i < (r + 1) * classes; i++)
        sum -= (term(logSigmoid(logits[i])) + term(logSigmoid(-logits[i]))) / classes;
    }
    found[r] = sum;
  }
  return found;
}

/** One class's part of the divergence, of two log probabilities. */
function halves(a: number, b: number): number {
  const mean = logAddExp(a, b) - Math.LN2;
  const side = (l: number) => (l === Number.NEGATIVE_INFINITY ? 0 : exp(l) * (l - mean));
  return (side(a) + side(b)) / 2;
}

function logAddExp(a: number, b: number): number {
  const top = max(a, b);
  return top === Number.NEGATIVE_INFINITY ? top : top + log1p(exp(-Math.abs(a - b)));
}

/** Of one row that starts at `at`. */
function logSoftmax(logits: ArrayLike<number>, at: number, out: Float64Array): void {
  let top = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < out.length; c++) top = max(top, logits[at + c]);
  let sum = 0;
  for (let c = 0; c < out.length; c++) sum += exp(logits[at + c] - top);
  const total = top + log(sum);
  for (let c = 0; c < out.length; c++) out[c] = logits[at + c] - total;
}

const logSigmoid = (z: number): number => (z >= 0 ? -log1p(exp(-z)) : z - log1p(exp(z)));
