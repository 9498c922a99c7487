import { floatAttribute, stringAttribute } from '../../graph/nodes.js';
import { add, div, minus, mul, plus, scale, unbroadcast, where } from '../emit.js';
import { elementwise, refuse, single } from '../rule.js';
import type { Tape } from '../tape.js';

const isAbove = (t: Tape, x: string, bound: number, like: string): string =>
  t.emit('Greater', [x, t.scalar(bound, like)]);

const isBelow = (t: Tape, x: string, bound: number, like: string): string =>
  t.emit('Less', [x, t.scalar(bound, like)]);

const sigmoid = (t: Tape, x: string): string => t.emit('Sigmoid', [x]);

/** dx = g where x > 0, else 0. */
export const Relu = elementwise((t, g, _, y) => where(t, isAbove(t, y, 0, y), g, t.scalar(0, y)));

/** dx = g where x > 0, else alpha g. */
export const LeakyRelu = elementwise((t, g, x, _, node) =>
  where(t, isAbove(t, x, 0, x), g, scale(t, g, floatAttribute(node, 'alpha', 0.01), x)),
);

/** y = x where x > 0, else s x; s stretches to x: dx = g or g s, ds = Σ g min(x, 0). */
export const PRelu = single((t, g, { node, need }) => {
  const [x, slope] = node.input;
  return [
    need[0] ? where(t, isAbove(t, x, 0, x), g, mul(t, g, slope)) : undefined,
    need[1]
      ? unbroadcast(t, mul(t, g, t.emit('Min', [x, t.scalar(0, x)])), t.dims(x), t.dims(slope))
      : undefined,
  ];
});

/** y = x or alpha (e^x - 1): dx = g or g (y + alpha). */
export const Elu = elementwise((t, g, x, y, node) =>
  where(t, isAbove(t, x, 0, x), g, mul(t, g, plus(t, y, floatAttribute(node, 'alpha', 1), x))),
);

/** y = gamma x or gamma alpha (e^x - 1): dx = g gamma or g (y + gamma alpha). */
export const Selu = elementwise((t, g, x, y, node) => {
  const alpha = floatAttribute(node, 'alpha', 1.6732632423543772);
  const gamma = floatAttribute(node, 'gamma', 1.0507009873554805);
  const slope = plus(t, y, gamma * alpha, x);
  return mul(t, g, where(t, isAbove(t, x, 0, x), t.scalar(gamma, x), slope));
});

/** y = x or alpha (e^(x / alpha) - 1): dx = g or g (y / alpha + 1). */
export const Celu = elementwise((t, g, x, y, node) => {
  const slope = plus(t, scale(t, y, 1 / floatAttribute(node, 'alpha', 1), x), 1, x);
  return where(t, isAbove(t, x, 0, x), g, mul(t, g, slope));
});

/** dx = g where x was kept, at the bounds too, else 0. */
export const Clip = single((t, g, { node, need }) => {
  if (need[1] || need[2]) refuse(node, 'a bound that is trained');
  const [x] = node.input;
  return [where(t, t.emit('Equal', [x, node.output[0]]), g, t.scalar(0, x))];
});

/** y = alpha x + beta, kept between 0 and 1: dx = g alpha where 0 < y < 1, else 0. */
export const HardSigmoid = elementwise((t, g, x, y, node) => {
  const inside = t.emit('And', [isAbove(t, y, 0, x), isBelow(t, y, 1, x)]);
  const inner = scale(t, g, floatAttribute(node, 'alpha', 0.2), x);
  return where(t, inside, inner, t.scalar(0, x));
});

/** dx = g sigmoid(x). */
export const Softplus = elementwise((t, g, x) => mul(t, g, sigmoid(t, x)));

/** y = x / (1 + |x|): dx = g / (1 + |x|)². */
export const Softsign = elementwise((t, g, x) => {
  const size = plus(t, t.emit('Abs', [x]), 1, x);
  return div(t, g, mul(t, size, size));
});

/** dx = g y (1 - y). */
export const Sigmoid = elementwise((t, g, _, y) => mul(t, mul(t, g, y), minus(t, 1, y, y)));

/** dx = g (1 - y²). */
export const Tanh = elementwise((t, g, _, y) => mul(t, g, minus(t, 1, mul(t, y, y), y)));

/**
 * y = x P(x), where P is the normal distribution, or ½ (1 + tanh u) with u = √(2/π) (x + 0.044715 x³):
 * dx = g (P + x P').
 */
export const Gelu = elementwise((t, g, x, _, node) =>
  mul(
    t,
    g,
    stringAttribute(node, 'approximate', 'none') === 'tanh' ? tanhSlope(t, x) : erfSlope(t, x),
  ),
);

function erfSlope(t: Tape, x: string): string {
  const erf = t.emit('Erf', [scale(t, x, Math.SQRT1_2, x)]);
  const distribution = plus(t, scale(t, erf, 0.5, x), 0.5, x);
  const bell = t.emit('Exp', [mul(t, x, scale(t, x, -0.5, x))]);
  const density = scale(t, bell, 1 / Math.sqrt(2 * Math.PI), x);
  return add(t, distribution, mul(t, x, density));
}

function tanhSlope(t: Tape, x: string): string {
  const slope = Math.sqrt(2 / Math.PI);
  const x2 = mul(t, x, x);
  const u = mul(t, x, plus(t, scale(t, x2, slope * 0.044715, x), slope, x));
  const du = plus(t, scale(t, x2, 3 * slope * 0.044715, x), slope, x);
  const tanh = t.emit('Tanh', [u]);
  // ½ (1 + tanh) (1 + x u' (1 - tanh)).
  const steep = plus(t, mul(t, mul(t, x, du), minus(t, 1, tanh, x)), 1, x);
  return mul(t, scale(t, plus(t, tanh, 1, x), 0.5, x), steep);
}

/** dx = g where x > alpha, else 0. */
export const ThresholdedRelu = elementwise((t, g, x, _, node) =>
  where(t, isAbove(t, x, floatAttribute(node, 'alpha', 1), x), g, t.scalar(0, x)),
);
