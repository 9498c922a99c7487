import { int } from '../../../graph/build.js';
import type { CoefficientRule } from '../coefficient-rule.js';
import type { Emitter } from './emitter.js';
import type { Scores } from './scores.js';

/** Names of what the graph computes of a batch of N samples. */
export interface CoefficientValues {
  /** float32 [N]: Jensen-Shannon divergence in nats; not finite where the scores are not. */
  js: string;
  /** float32 [N], or [1] for the batch as a whole. */
  lambda: string;
  /** The generalist's share in the weights, of the shape of `lambda`. */
  share: string;
}

/** The largest number that a float32 logarithm may see as zero: log(0) times 0 would not be a number. */
const tiny = 1.2e-38;

/**
 * Emits the coefficient of interpolation, from the scores of both models.
 * @param perBatch one coefficient for the batch; otherwise one a sample
 */
export function emitCoefficient(
  e: Emitter,
  scores: Scores,
  { generalist, expert }: { generalist: string; expert: string },
  rule: CoefficientRule,
  perBatch: boolean,
): CoefficientValues {
  const p = distribution(e, scores, generalist, rule.temperature.generalist);
  const q = distribution(e, scores, expert, rule.temperature.expert);
  const raw = perSample(e, scores, divergence(e, scores, p, q));
  const bad = e.emit('IsNaN', [raw]);
  const positive = e.emit('Max', [raw, e.scalar(0)]);
  const js = e.emit('Where', [bad, raw, positive]);

  if (rule.kind === 'entropy') {
    const [h, k] = [p, q].map((x) => perSample(e, scores, entropy(e, scores, x)));
    const each = e.emit('Where', [bad, e.scalar(0), confidence(e, h, k, rule.offset)]);
    const lambda = perBatch ? batchMean(e, each) : each;
    // DaWin's λ weights the fine-tuned model.
    return { js, lambda, share: oneMinus(e, lambda) };
  }
  const known = e.emit('Where', [bad, e.scalar(Math.LN2), positive]);
  let lambda: string;
  if (rule.form === 'calibrated' && perBatch) lambda = formOf(e, batchMean(e, known), rule);
  else {
    const each = e.emit('Where', [bad, e.scalar(rule.lmax), formOf(e, known, rule)]);
    lambda = perBatch ? batchMean(e, each) : each;
  }
  return { js, lambda, share: rule.lambdaOn === 'expert' ? oneMinus(e, lambda) : lambda };
}

const oneMinus = (e: Emitter, x: string) => e.emit('Sub', [e.scalar(1), x]);

/** λ of a divergence, elementwise. */
function formOf(
  e: Emitter,
  js: string,
  { form, gamma, lmin, lmax, tau, kappa }: Extract<CoefficientRule, { kind: 'disagreement' }>,
): string {
  const argument =
    form === 'calibrated'
      ? e.emit('Sub', [e.emit('Mul', [js, e.scalar(kappa / tau)]), e.scalar(kappa)])
      : e.emit('Mul', [js, e.scalar(gamma)]);
  const sigmoid = e.emit('Sigmoid', [argument]);
  const unit =
    form === 'centred'
      ? e.emit('Sub', [e.emit('Mul', [sigmoid, e.scalar(2)]), e.scalar(1)])
      : sigmoid;
  if (lmin === 0 && lmax === 1) return unit;
  return e.emit('Add', [e.emit('Mul', [unit, e.scalar(lmax - lmin)]), e.scalar(lmin)]);
}

/** [1]: the mean over the samples; 0 for none. */
function batchMean(e: Emitter, x: string): string {
  const count = e.emit('Max', [e.cast(e.emit('Shape', [x]), 'float32'), e.scalar(1)]);
  return e.emit('Div', [e.reduceSum(x, [0], true), count]);
}

/** Probabilities and their logarithms; of labels also of the opposite. */
interface Distribution {
  p: string;
  log: string;
  opposite?: { p: string; log: string };
}

function distribution(
  e: Emitter,
  { link, linked, axis, dtype }: Scores,
  raw: string,
  temperature: number,
): Distribution {
  let x = dtype === 'float32' ? raw : e.cast(raw, 'float32');
  const cool = (z: string) => (temperature === 1 ? z : e.emit('Div', [z, e.scalar(temperature)]));
  const clippedLog = (z: string) => e.emit('Log', [e.emit('Max', [z, e.scalar(tiny)])]);
  if (link === 'softmax') {
    if (linked) x = clippedLog(x);
    const along = [int('axis', axis)];
    const log = e.emit('LogSoftmax', [cool(x)], along);
    return { p: e.emit('Softmax', [cool(x)], along), log };
  }
  if (linked) {
    if (temperature === 1)
      return { p: x, log: clippedLog(x), opposite: opposite(e, x, clippedLog) };
    x = e.emit('Sub', [clippedLog(x), clippedLog(oneMinus(e, x))]);
  }
  const p = e.emit('Sigmoid', [cool(x)]);
  return { p, log: clippedLog(p), opposite: opposite(e, p, clippedLog) };
}

function opposite(e: Emitter, p: string, log: (z: string) => string) {
  const rest = oneMinus(e, p);
  return { p: rest, log: log(rest) };
}

/** Jensen-Shannon divergence of each position: [N, ...] with the class axis summed or averaged. */
function divergence(e: Emitter, { axis, link }: Scores, p: Distribution, q: Distribution): string {
  const terms = (a: { p: string; log: string }, b: { p: string; log: string }) => {
    const m = e.emit('Mul', [e.emit('Add', [a.p, b.p]), e.scalar(0.5)]);
    const log = e.emit('Log', [e.emit('Max', [m, e.scalar(tiny)])]);
    const side = (x: { p: string; log: string }) =>
      e.emit('Mul', [x.p, e.emit('Sub', [x.log, log])]);
    return e.emit('Mul', [e.emit('Add', [side(a), side(b)]), e.scalar(0.5)]);
  };
  const own = terms(p, q);
  if (link === 'softmax' || !p.opposite || !q.opposite) return e.reduceSum(own, [axis]);
  return e.reduceMean(e.emit('Add', [own, terms(p.opposite, q.opposite)]), [axis]);
}

/** Entropy in nats of each position; of labels the mean of their own. */
function entropy(e: Emitter, { axis, link }: Scores, x: Distribution): string {
  const terms = ({ p, log }: { p: string; log: string }) => e.emit('Mul', [p, log]);
  if (link === 'softmax' || !x.opposite) return e.emit('Neg', [e.reduceSum(terms(x), [axis])]);
  const both = e.emit('Add', [terms(x), terms(x.opposite)]);
  return e.emit('Neg', [e.reduceMean(both, [axis])]);
}

/** [N]: the mean over positions. */
function perSample(e: Emitter, { rank }: Scores, x: string): string {
  if (rank === 2) return x;
  return e.reduceMean(x, rank === 3 ? [1] : [1, 2]);
}

/** DaWin's share of the fine-tuned model, of the entropies of both. */
function confidence(
  e: Emitter,
  pretrained: string,
  tuned: string,
  offset?: { offset: number; weight: number },
): string {
  const [a, b] = [pretrained, tuned].map((h) => e.emit('Exp', [e.emit('Neg', [h])]));
  if (!offset) return e.emit('Div', [b, e.emit('Add', [a, b])]);
  const top = e.emit('Add', [b, e.scalar(offset.offset / offset.weight)]);
  const bottom = e.emit('Add', [e.emit('Add', [a, b]), e.scalar(offset.offset)]);
  return e.emit('Div', [top, bottom]);
}
