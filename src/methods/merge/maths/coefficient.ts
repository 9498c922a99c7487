import type { CoefficientRule } from '../coefficient-rule.js';

type Disagreement = Omit<
  Extract<CoefficientRule, { kind: 'disagreement' }>,
  'temperature' | 'kind'
>;
type Rule = Omit<Disagreement, 'lambdaOn'>;

/** Less disagreement than this is rounding. */
const leastTau = 1e-6;

/**
 * λ of each sample, from its disagreement in nats. A sample whose scores are not finite gets `lmax`.
 * @param js [samples]
 */
export const coefficient = (js: Float64Array, rule: Rule): Float64Array =>
  js.map((j) => (Number.isNaN(j) ? rule.lmax : lambdaOf(j, rule)));

/**
 * λ of a batch: the mean of λ, but for the calibrated form λ of the mean disagreement, which tells
 * drift from noise far better. A sample whose scores are not finite counts as the largest.
 */
export function batchCoefficient(js: Float64Array, rule: Rule): number {
  if (rule.form !== 'calibrated') return mean(coefficient(js, rule));
  return lambdaOf(mean(js.map((j) => (Number.isNaN(j) ? Math.LN2 : j))), rule);
}

/** τ of the calibrated form: 3 times the mean disagreement where the expert is at home. */
export function calibrateTau(js: Float64Array): { tau: number; floored: boolean } {
  const known = js.filter(Number.isFinite);
  const tau = known.length === 0 ? 0 : 3 * mean(known);
  return tau < 3 * leastTau ? { tau: leastTau, floored: true } : { tau, floored: false };
}

function lambdaOf(j: number, { form, gamma, lmin, lmax, tau, kappa }: Rule): number {
  const unit =
    form === 'calibrated'
      ? sigmoid(kappa * (j / tau - 1))
      : form === 'centred'
        ? 2 * sigmoid(gamma * j) - 1
        : sigmoid(gamma * j);
  return lmin + (lmax - lmin) * unit;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

const mean = (values: Float64Array): number => values.reduce((a, b) => a + b, 0) / values.length;
