import { usageError } from '../../../errors.js';
import type { Coefficients } from '../dynamic/merge-dynamic.js';
import { calibrateTau, coefficient } from '../maths/coefficient.js';
import type { Observation } from '../observe.js';
import { formOf, type T3Parameters } from './parameters.js';

/** Slopes where none is given. */
const slopes = { literal: 0.5, centred: 20 };

/** The coefficient of T3 with these parameters. */
export function t3Coefficients(given: T3Parameters): Coefficients {
  const { lmin, lmax, kappa, lambdaOn, temperature } = given;
  const temperatures = { generalist: temperature, expert: temperature };
  return {
    temperature: temperatures,
    lambdaOn,
    prefix: 't3',
    rule(observation, notes) {
      const form = formOf(given, observation !== undefined);
      const gamma = given.gamma ?? (form === 'calibrated' ? 0 : slopes[form]);
      const tau = form === 'calibrated' ? tauOf(given, observation, notes) : 1;
      if (form === 'literal') noteNarrow(gamma, lmin, lmax, notes);
      return {
        kind: 'disagreement',
        temperature: temperatures,
        form,
        gamma,
        lmin,
        lmax,
        tau,
        kappa,
        lambdaOn,
      };
    },
    shares({ js }, rule) {
      if (rule.kind !== 'disagreement') throw new Error('T3 goes by disagreement');
      const lambda = coefficient(js, rule);
      return rule.lambdaOn === 'expert' ? lambda.map((l) => 1 - l) : lambda;
    },
  };
}

function tauOf(
  { tau }: T3Parameters,
  observation: Observation | undefined,
  notes: string[],
): number {
  if (tau !== undefined) return tau;
  if (!observation)
    throw usageError('The calibrated form needs to know how much the models disagree.', {
      expected: '--calib DATA (unlabelled samples of the domain), or --tau',
    });
  const found = calibrateTau(observation.js);
  notes.push(
    found.floored
      ? 'The models hardly disagree on --calib: τ is 1e-6, and λ follows rounding.'
      : `τ is ${found.tau.toPrecision(4)}, 3 times the mean disagreement on --calib.`,
  );
  return found.tau;
}

/** The published form moves little: J is at most ln 2. */
function noteNarrow(gamma: number, lmin: number, lmax: number, notes: string[]): void {
  const at = (js: number) => lmin + (lmax - lmin) / (1 + Math.exp(-gamma * js));
  const [low, high] = [at(0), at(Math.LN2)];
  if (high - low < 0.25)
    notes.push(
      `The literal form with γ = ${gamma} keeps λ between ${low.toFixed(3)} and ${high.toFixed(3)}, whatever the models say: nearly a fixed average. The other forms, or a larger --gamma, do more.`,
    );
}
