/**
 * Smooth activations f of Gaussian variables, by Mehler's formula.
 *
 *   z      standard normal, u = m + s·z
 *   Heₖ    probabilists' Hermite polynomials
 *   cₖ     E f(m + s·z)·Heₖ(z)/√k!
 *   ρ      correlation of two variables
 *
 *   Cov(f(u), f(u')) = Σₖ cₖ·c'ₖ·ρᵏ, k = 1, 2, ...
 */
import { type Activation, activation, type PairRule } from './activation.js';
import { cumulative, normalRule } from './normal.js';

/** Terms of the series. */
const TERMS = 12;

const { nodes, weights } = normalRule();

/** weights·Heₖ(z)/√k! per k, at the nodes. */
const hermite = normalizedHermite();

function normalizedHermite(): Float64Array[] {
  const rows = [new Float64Array(nodes.length).fill(1), nodes.slice()];
  for (let k = 2; k <= TERMS; k++) {
    const [twoBefore, before] = rows.slice(-2);
    rows.push(
      nodes.map((z, n) => (z * before[n] - Math.sqrt(k - 1) * twoBefore[n]) / Math.sqrt(k)),
    );
  }
  return rows.map((row) => row.map((value, n) => value * weights[n]));
}

interface SmoothChannels {
  mean: Float64Array;
  variance: Float64Array;
  /** [N, TERMS] c₁, c₂, ... */
  c: Float64Array;
}

class MehlerRule implements PairRule<SmoothChannels> {
  constructor(private readonly f: (u: number) => number) {}

  channels(m: Float64Array, s: Float64Array): SmoothChannels {
    const mean = new Float64Array(m.length);
    const variance = new Float64Array(m.length);
    const c = new Float64Array(m.length * TERMS);
    for (let i = 0; i < m.length; i++) {
      const values = nodes.map((z) => this.f(m[i] + s[i] * z));
      mean[i] = dot(values, weights);
      let square = 0;
      for (let n = 0; n < values.length; n++) square += weights[n] * (values[n] - mean[i]) ** 2;
      variance[i] = square;
      for (let k = 1; k <= TERMS; k++) c[i * TERMS + k - 1] = dot(values, hermite[k]);
    }
    return { mean, variance, c };
  }

  covariance(left: SmoothChannels, i: number, right: SmoothChannels, j: number, rho: number) {
    let sum = 0;
    for (let k = TERMS - 1; k >= 0; k--) {
      sum = rho * (sum + left.c[i * TERMS + k] * right.c[j * TERMS + k]);
    }
    return sum;
  }
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += a[n] * b[n];
  return sum;
}

/** Any activation without jumps, from its function. Kinks are smoothed; see gaussian-relu.ts. */
export const smooth = (f: (u: number) => number): Activation => activation(new MehlerRule(f));

/** u·σ(u) */
export const silu: Activation = smooth((u) => u / (1 + Math.exp(-u)));

/** u·Φ(u) */
export const gelu: Activation = smooth((u) => u * cumulative(u));

/** u·min(max(u + 3, 0), 6)/6 */
export const hardSwish: Activation = smooth((u) => (u * Math.min(6, Math.max(0, u + 3))) / 6);
