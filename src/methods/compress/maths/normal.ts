/** The standard normal distribution, and quadrature rules for integrals over it. */

/** φ(x) */
export const density = (x: number): number => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);

/** Where the series of Φ gives way to the continued fraction of its tail. */
const TAIL = 3.5;
const TAIL_TERMS = 60;

/** Φ(x), to about 1e-15 relative. */
export function cumulative(x: number): number {
  if (x < -TAIL) return tail(-x);
  if (x > TAIL) return 1 - tail(x);
  // Φ(x) = 1/2 + φ(x)·(x + x³/3 + x⁵/(3·5) + ...)
  let sum = x;
  let term = x;
  for (let odd = 3; Math.abs(term) > 1e-17 * Math.abs(sum); odd += 2) {
    term *= (x * x) / odd;
    sum += term;
  }
  return 0.5 + density(x) * sum;
}

/** 1 - Φ(x) = φ(x)/(x + 1/(x + 2/(x + 3/(x + ...)))), x > 0. */
function tail(x: number): number {
  let fraction = x;
  for (let k = TAIL_TERMS; k > 0; k--) fraction = x + k / fraction;
  return density(x) / fraction;
}

export interface Rule {
  nodes: Float64Array;
  weights: Float64Array;
}

/** Gauss-Legendre rule on [0, 1]. */
export function gaussLegendre(count: number): Rule {
  const nodes = new Float64Array(count);
  const weights = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let x = Math.cos((Math.PI * (i + 0.75)) / (count + 0.5));
    let slope = 0;
    // Newton's steps double the digits; the first guess has two.
    for (let step = 0; step < 8; step++) {
      let value = x;
      let before = 1;
      for (let k = 2; k <= count; k++) {
        [value, before] = [((2 * k - 1) * x * value - (k - 1) * before) / k, value];
      }
      slope = (count * (x * value - before)) / (x * x - 1);
      x -= value / slope;
    }
    nodes[count - 1 - i] = (1 + x) / 2;
    weights[count - 1 - i] = 1 / ((1 - x * x) * slope * slope);
  }
  return { nodes, weights };
}

const SPREAD = 9;
const STEP = 1 / 8;

/**
 * Σ wₖ·f(zₖ) = E f(z) of a standard normal z: the trapezoidal rule from -9 to 9 in steps of 1/8. For
 * functions with no singularity near the real line it is as exact as float64 (Gauss-Hermite needs
 * fewer nodes but takes harder to functions with a kink).
 */
export function normalRule(): Rule {
  const count = (2 * SPREAD) / STEP + 1;
  const nodes = Float64Array.from({ length: count }, (_, k) => k * STEP - SPREAD);
  return { nodes, weights: nodes.map((z) => STEP * density(z)) };
}
