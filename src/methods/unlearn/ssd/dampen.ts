// Selective synaptic dampening: which parameters, and by how much (SSD, arXiv 2308.07707).
//
//   select i  ⇔  I_F[i] > α·I_D[i]
//   β[i]      =  min((λ·I_D[i] / I_F[i])^p, cap)
//   θ[i]      ←  β[i]·θ[i] where selected
//
// I_F, I_D: importance for the forget set and for the full training set.
//
// The paper writes min(λ·I_D/I_F·θ, θ), which is right for θ > 0 only; like the authors' code we cap
// the factor.

import type { Floats } from '../../../autodiff/optimizer.js';

/** The importances of the same parameters for the forget set and for the full training set. */
export interface ImportancePair {
  forget: Floats;
  full: Floats;
}

export interface Dampening {
  /** Selection threshold α >= 0 on the ratio of the importances. */
  alpha: number;
  /** Dampening constant λ >= 0: smaller cuts deeper. */
  lambda: number;
  /** Power p on λ·I_D/I_F, applied before the cap; 1 in the paper. */
  exponent?: number;
  /** Upper bound of the factor; 1 in the paper, so that no weight grows. */
  cap?: number;
}

/**
 * Dampens the parameters that matter much more for the forget set than for the full set.
 *
 * Arithmetic is that of the importances: float32, rounded after every operation as in the authors'
 * code, when both are float32, and float64 otherwise; weights are rounded to their own type once. With NaN on
 * either side, or an infinite I_D, a parameter is not selected; I_D = 0 < I_F gives 0, and so does an
 * infinite I_F.
 * @param w parameters of one tensor, any shape; `forget` and `full` have one entry for each
 * @returns new weights, and how many were selected (a weight of 0 counts too)
 */
export function dampen<W extends Floats>(
  w: W,
  forget: Floats,
  full: Floats,
  { alpha, lambda, exponent = 1, cap = 1 }: Dampening,
): { weights: W; selected: number } {
  if (w.length !== forget.length) throw new Error(`${forget.length} importances of ${w.length}`);
  const round = rounding(forget, full);
  const a = round(alpha);
  const l = round(lambda);
  const weights = w.slice() as W;
  let selected = 0;
  for (let i = 0; i < w.length; i++) {
    // Turned this way, a NaN on either side selects nothing.
    if (!(forget[i] > round(a * full[i]))) continue;
    const share = round(round(l * full[i]) / forget[i]);
    const factor = exponent === 1 ? share : round(share ** exponent);
    weights[i] *= Math.min(factor, cap);
    selected++;
  }
  return { weights, selected };
}

/** How many parameters `dampen` selects. */
export function countSelected({ forget, full }: ImportancePair, alpha: number): number {
  const round = rounding(forget, full);
  const a = round(alpha);
  let selected = 0;
  for (let i = 0; i < forget.length; i++) if (forget[i] > round(a * full[i])) selected++;
  return selected;
}

const exact = (value: number) => value;

function rounding(forget: Floats, full: Floats): (value: number) => number {
  if (forget.length !== full.length)
    throw new Error(`importances of ${forget.length} and of ${full.length} parameters`);
  return forget instanceof Float32Array && full instanceof Float32Array ? Math.fround : exact;
}
