/** Functions that are applied to every element of a tensor alike. */
import type { Activation } from '../maths/activation.js';
import { type PiecewiseLinear, piecewiseLinear } from '../maths/gaussian-relu.js';
import { smooth } from '../maths/gaussian-smooth.js';
import { cumulative } from '../maths/normal.js';

/** f(u); `pieces` where it is of straight pieces, whose moments are exact. */
export interface Elementwise {
  apply: (u: number) => number;
  pieces?: PiecewiseLinear;
}

export function fromPieces(pieces: PiecewiseLinear): Elementwise {
  const { offset, linear, knots } = pieces;
  const apply = (u: number) => {
    let sum = offset + linear * u;
    for (const { at, slope } of knots) sum += slope * Math.max(0, u - at);
    return sum;
  };
  return { apply, pieces };
}

/** scale·u + shift */
export const affine = (scale: number, shift: number): Elementwise =>
  fromPieces({ offset: shift, linear: scale, knots: [] });

export const identity = affine(1, 0);

/** u where u > 0, else slope·u. */
export const leaky = (slope: number): Elementwise =>
  fromPieces({ offset: 0, linear: slope, knots: [{ at: 0, slope: 1 - slope }] });

/** min(max(u, low), high); either bound may be infinite. */
export function clamp(low: number, high: number): Elementwise {
  const bounded = low > -Infinity;
  const knots = [];
  if (bounded) knots.push({ at: low, slope: 1 });
  if (high < Infinity) knots.push({ at: high, slope: -1 });
  return fromPieces({ offset: bounded ? low : 0, linear: bounded ? 0 : 1, knots });
}

/** Behind an affine function of less slope kinks would be beyond all numbers. */
const LEAST_SLOPE = 1e-100;

/** outer(inner(u)); of straight pieces if both are and one of them is affine. */
export function compose(outer: Elementwise, inner: Elementwise): Elementwise {
  const [f, g] = [outer.pieces, inner.pieces];
  if (f && g && f.knots.length === 0) {
    return fromPieces({
      offset: f.offset + f.linear * g.offset,
      linear: f.linear * g.linear,
      knots: g.knots.map(({ at, slope }) => ({ at, slope: f.linear * slope })),
    });
  }
  if (f && g && g.knots.length === 0 && Math.abs(g.linear) > LEAST_SLOPE) {
    return fromPieces(ofAffine(f, g));
  }
  return { apply: (u) => outer.apply(inner.apply(u)) };
}

/** f(a·u + b). Where a < 0, relu(a·u + b - at) = |a|·(relu(u - k) - (u - k)), k = (at - b)/a. */
function ofAffine(f: PiecewiseLinear, { linear: a, offset: b }: PiecewiseLinear): PiecewiseLinear {
  let offset = f.offset + f.linear * b;
  let linear = f.linear * a;
  const knots = f.knots.map(({ at, slope }) => {
    const knot = { at: (at - b) / a, slope: slope * Math.abs(a) };
    if (a < 0) {
      offset += knot.slope * knot.at;
      linear -= knot.slope;
    }
    return knot;
  });
  return { offset, linear, knots };
}

/** What moments become under it. */
export const momentsOf = ({ apply, pieces }: Elementwise): Activation =>
  pieces ? piecewiseLinear(pieces) : smooth(apply);

export const sigmoid = (u: number) => 1 / (1 + Math.exp(-u));
export const softplus = (u: number) => Math.max(0, u) + Math.log1p(Math.exp(-Math.abs(u)));
export const elu = (u: number, alpha: number) => (u > 0 ? u : alpha * Math.expm1(u));
/** 2·Φ(√2·u) - 1 */
export const erf = (u: number) => 2 * cumulative(Math.SQRT2 * u) - 1;
export const tanhGelu = (u: number) =>
  0.5 * u * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (u + 0.044715 * u ** 3)));
