/**
 * ReLU, and sums of shifted ReLUs, of Gaussian variables.
 *
 *   u      N(m, s²), and h = m/s
 *   ρ      correlation of two of them, (h, s) and (k, s')
 *   Φ, φ   distribution and density of the standard normal
 *
 *   E relu(u)  = m·Φ(h) + s·φ(h)
 *   E relu(u)² = (m² + s²)·Φ(h) + m·s·φ(h)
 *   Cov(relu(u), relu(u')) = s·s'·[ρ·Φ(h)·Φ(k)
 *       + 1/(2π)·∫₀^asin(ρ) (ρ - sin t)·exp(-(h² + k² - 2·h·k·sin t)/(2·cos²t)) dt]
 *
 * from ∂²/∂ρ² E relu·relu = s·s'·φ₂(h, k; ρ), the bivariate density (Price's theorem).
 */
import { type Activation, activation, type PairRule } from './activation.js';
import { cumulative, density, gaussLegendre } from './normal.js';

const rule = gaussLegendre(24);
/** Below this |ρ| a third of the nodes is as exact: the integrand is smooth far beyond the interval. */
const WEAK = 0.4;
const weakRule = gaussLegendre(8);

export interface ReluMoments {
  mean: number;
  variance: number;
}

/** Of relu(u); s may be 0. */
export function reluMoments(m: number, s: number): ReluMoments {
  if (!(s > 0)) return { mean: Math.max(0, m), variance: 0 };
  const h = m / s;
  return { mean: s * reluMean(h), variance: s * s * kneeCovariance(h, h) };
}

/** E relu(z + h) of a standard normal z. */
const reluMean = (h: number): number => Math.max(0, h * cumulative(h) + density(h));

/**
 * Cov(relu(z + h), relu(z + k)) of one standard normal z, exact also where h and k are large, as those
 * of a channel that is always on.
 */
function kneeCovariance(h: number, k: number): number {
  const low = Math.min(h, k);
  const high = Math.max(h, k);
  // relu(x) = x + relu(-x), and Cov(z, relu(-z - h)) = -Φ(-h).
  if (low > 0) return 1 - cumulative(-low) - cumulative(-high) + kneeCovariance(-high, -low);
  // relu(z + low)·relu(z + high) = relu(z + low)² + (high - low)·relu(z + low)
  const mean = reluMean(low);
  const square = (low * low + 1) * cumulative(low) + low * density(low);
  return Math.max(0, square + mean * (high - low - reluMean(high)));
}

/** Cov(relu(u), relu(u'))/(s·s'), given |ρ| < 1, Φ(h) and Φ(k). */
export function reluCovariance(
  h: number,
  k: number,
  rho: number,
  belowH = cumulative(h),
  belowK = cumulative(k),
): number {
  const { nodes, weights } = Math.abs(rho) < WEAK ? weakRule : rule;
  const limit = Math.asin(rho);
  const squares = h * h + k * k;
  const product = 2 * h * k;
  let integral = 0;
  for (let n = 0; n < nodes.length; n++) {
    const sine = Math.sin(limit * nodes[n]);
    const exponent = (product * sine - squares) / (2 * (1 - sine) * (1 + sine));
    integral += weights[n] * (rho - sine) * Math.exp(exponent);
  }
  return rho * belowH * belowK + (limit * integral) / (2 * Math.PI);
}

/** f(u) = offset + linear·u + Σ slope·relu(u - at) */
export interface PiecewiseLinear {
  offset: number;
  linear: number;
  knots: readonly { at: number; slope: number }[];
}

interface PiecewiseChannels {
  mean: Float64Array;
  variance: Float64Array;
  s: Float64Array;
  /** (m - at)/s and its Φ, per knot. */
  h: Float64Array[];
  below: Float64Array[];
}

class PiecewiseRule implements PairRule<PiecewiseChannels> {
  constructor(private readonly f: PiecewiseLinear) {}

  channels(m: Float64Array, s: Float64Array): PiecewiseChannels {
    const h = this.f.knots.map(({ at }) => m.map((mean, i) => (mean - at) / s[i]));
    return {
      mean: m.map((mean, i) => this.mean(mean, s[i])),
      variance: m.map((mean, i) => this.variance(mean, s[i])),
      s,
      h,
      below: h.map((values) => values.map(cumulative)),
    };
  }

  private mean(m: number, s: number): number {
    const { offset, linear, knots } = this.f;
    let sum = offset + linear * m;
    for (const { at, slope } of knots) sum += slope * reluMoments(m - at, s).mean;
    return sum;
  }

  private variance(m: number, s: number): number {
    if (!(s > 0)) return 0;
    const { linear, knots } = this.f;
    let sum = linear * linear;
    for (const { at, slope } of knots) {
      const h = (m - at) / s;
      sum += 2 * linear * slope * cumulative(h);
      for (const other of knots) {
        sum += slope * other.slope * kneeCovariance(h, (m - other.at) / s);
      }
    }
    return s * s * Math.max(0, sum);
  }

  covariance(left: PiecewiseChannels, i: number, right: PiecewiseChannels, j: number, rho: number) {
    const { linear, knots } = this.f;
    let sum = linear * linear * rho;
    for (let a = 0; a < knots.length; a++) {
      const { slope } = knots[a];
      const below = left.below[a][i];
      sum += linear * slope * rho * (below + right.below[a][j]);
      for (let b = 0; b < knots.length; b++) {
        const h = left.h[a][i];
        const k = right.h[b][j];
        sum += slope * knots[b].slope * reluCovariance(h, k, rho, below, right.below[b][j]);
      }
    }
    return left.s[i] * right.s[j] * sum;
  }
}

/** Any continuous activation of straight pieces. */
export const piecewiseLinear = (f: PiecewiseLinear): Activation => activation(new PiecewiseRule(f));

export const relu: Activation = leakyRelu(0);

/** u where u > 0, else slope·u. */
export function leakyRelu(slope: number): Activation {
  return piecewiseLinear({ offset: 0, linear: slope, knots: [{ at: 0, slope: 1 - slope }] });
}

/** min(max(u, low), high); ReLU6 is clip(0, 6). Either bound may be infinite. */
export function clip(low: number, high: number): Activation {
  const bounded = low > -Infinity;
  const knots = [];
  if (bounded) knots.push({ at: low, slope: 1 });
  if (high < Infinity) knots.push({ at: high, slope: -1 });
  return piecewiseLinear({ offset: bounded ? low : 0, linear: bounded ? 0 : 1, knots });
}
