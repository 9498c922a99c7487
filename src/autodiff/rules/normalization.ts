import { floatAttribute, intAttribute } from '../../graph/nodes.js';
import type { NodeProto } from '../../onnx/index.js';
import { axisOf } from '../axes.js';
import {
  add,
  div,
  mul,
  neg,
  product,
  reduceSum,
  reshape,
  scale,
  sub,
  unbroadcast,
} from '../emit.js';
import { refuse, single } from '../rule.js';
import { extraOutput, type Tape } from '../tape.js';

/**
 * y = (x - mean) r scale + b with r = 1 / √(var + epsilon), per channel, of stored statistics:
 * dx = g r scale, dscale = r (Σ g x - mean Σ g), db = Σ g, dmean = -r scale Σ g,
 * dvar = -r² scale dscale / 2.
 */
export const BatchNormalization = single((t, g, { node, need }) => {
  if (intAttribute(node, 'training_mode', 0) === 1) refuse(node, 'training_mode 1');
  const [x, factor, , average, variance] = node.input;
  const dims = t.dims(x);
  const others = dims.flatMap((_, i) => (i === 1 ? [] : [i]));
  const epsilon = t.scalar(epsilonOf(node), variance);
  const r = t.emit('Reciprocal', [t.emit('Sqrt', [add(t, variance, epsilon)])]);
  const slope = need[0] || need[3] ? mul(t, factor, r) : '';
  const perChannel = dims.slice(1).map((_, i) => (i === 0 ? -1 : 1));
  const sum = need.slice(1).some(Boolean) ? reduceSum(t, g, others, false) : '';
  const moment = () => sub(t, reduceSum(t, mul(t, g, x), others, false), mul(t, average, sum));
  const dscale = need[1] || need[4] ? mul(t, r, moment()) : '';
  const dvariance = () => scale(t, mul(t, mul(t, mul(t, r, r), factor), dscale), -0.5, variance);
  return [
    need[0] ? mul(t, g, reshape(t, slope, perChannel)) : undefined,
    need[1] ? dscale : undefined,
    need[2] ? sum : undefined,
    need[3] ? neg(t, mul(t, slope, sum)) : undefined,
    need[4] ? dvariance() : undefined,
  ];
});

/** y = standardised x, over the axes from `axis` on, times scale, plus b. */
export const LayerNormalization = single((t, g, p) => {
  const { node, need } = p;
  if (p.dy[1] !== undefined || p.dy[2] !== undefined) refuse(node, 'use of its Mean or InvStdDev');
  const [x, factor, b] = node.input;
  const dims = t.dims(x);
  const axes = axesFrom(axisOf(node, dims.length, -1), dims);
  const standard = (): Standardized => {
    // In float64 the statistics would come out in float32.
    if (t.dtype(x) !== 'float32') return standardized(t, x, axes, epsilonOf(node));
    const [mean, inverse] = [extraOutput(node, 1), extraOutput(node, 2)];
    return { value: mul(t, sub(t, x, mean), inverse), inverse, axes };
  };
  const z = need[0] || need[1] ? standard() : undefined;
  return [
    need[0] && z ? throughStandardized(t, mul(t, g, factor), z, x) : undefined,
    need[1] && z ? unbroadcast(t, mul(t, g, z.value), dims, t.dims(factor)) : undefined,
    need[2] ? unbroadcast(t, g, dims, t.dims(b)) : undefined,
  ];
});

/** y = x / √(mean x² + epsilon), over the axes from `axis` on, times scale. */
export const RMSNormalization = single((t, g, { node, need }) => {
  const [x, factor] = node.input;
  const dims = t.dims(x);
  const axes = axesFrom(axisOf(node, dims.length, -1), dims);
  const inverse = inverseRoot(t, x, x, axes, epsilonOf(node));
  const value = mul(t, x, inverse);
  const k = need[0] ? mul(t, g, factor) : '';
  return [
    need[0]
      ? mul(t, inverse, sub(t, k, mul(t, value, mean(t, mul(t, k, value), axes, x))))
      : undefined,
    need[1] ? unbroadcast(t, mul(t, g, value), dims, t.dims(factor)) : undefined,
  ];
});

/** y = standardised x, over the spatial axes, times scale, plus b, of each channel. */
export const InstanceNormalization = single((t, g, { node, need }) => {
  const [x, factor] = node.input;
  const dims = t.dims(x);
  const axes = axesFrom(2, dims);
  const others = dims.flatMap((_, i) => (i === 1 ? [] : [i]));
  const z = need[0] || need[1] ? standardized(t, x, axes, epsilonOf(node)) : undefined;
  const slope = () => reshape(t, factor, [-1, ...axes.map(() => 1)]);
  return [
    need[0] && z ? throughStandardized(t, mul(t, g, slope()), z, x) : undefined,
    need[1] && z ? reduceSum(t, mul(t, g, z.value), others, false) : undefined,
    need[2] ? reduceSum(t, g, others, false) : undefined,
  ];
});

const epsilonOf = (node: NodeProto): number => floatAttribute(node, 'epsilon', 1e-5);

const axesFrom = (axis: number, dims: readonly number[]): number[] =>
  dims.flatMap((_, i) => (i < axis ? [] : [i]));

/** x with mean 0 and variance 1 over some axes. */
interface Standardized {
  value: string;
  /** What x minus its mean was multiplied by; the axes are kept. */
  inverse: string;
  axes: readonly number[];
}

function standardized(t: Tape, x: string, axes: readonly number[], epsilon: number): Standardized {
  const centred = sub(t, x, mean(t, x, axes, x));
  const inverse = inverseRoot(t, centred, x, axes, epsilon);
  return { value: mul(t, centred, inverse), inverse, axes };
}

/** dL/dx = inverse (k - mean(k) - z mean(k z)), from k = dL/dz. */
function throughStandardized(t: Tape, k: string, z: Standardized, like: string): string {
  const { value, inverse, axes } = z;
  const along = mul(t, value, mean(t, mul(t, k, value), axes, like));
  return mul(t, inverse, sub(t, k, add(t, along, mean(t, k, axes, like))));
}

/** 1 / √(mean of v² + epsilon). */
const inverseRoot = (
  t: Tape,
  v: string,
  like: string,
  axes: readonly number[],
  epsilon: number,
): string => {
  const square = mean(t, mul(t, v, v), axes, like);
  return t.emit('Reciprocal', [t.emit('Sqrt', [add(t, square, t.scalar(epsilon, like))])]);
};

/** The mean over axes, which are kept, of a value of the dims of `like`. */
const mean = (t: Tape, v: string, axes: readonly number[], like: string): string => {
  const dims = t.dims(like);
  const count = product(axes.map((axis) => dims[axis]));
  return scale(t, reduceSum(t, v, axes, true), 1 / count, like);
};

/** y = x / |x| along an axis, in the 1- or 2-norm: dx = (g - n Σ g y) / |x|, n = y or the signs of x. */
export const LpNormalization = single((t, g, { node, need }) => {
  if (!need[0]) return [];
  const [x] = node.input;
  const [y] = node.output;
  const axis = axisOf(node, t.dims(x).length, -1);
  const along = (v: string) => reduceSum(t, v, [axis], true);
  const first = intAttribute(node, 'p', 2) === 1;
  const norm = first ? along(t.emit('Abs', [x])) : t.emit('Sqrt', [along(mul(t, x, x))]);
  const direction = first ? t.emit('Sign', [x]) : y;
  // The y of a zero vector is zero: its gradient is taken as zero too, as torch does for norms.
  const isZero = t.emit('Equal', [norm, t.scalar(0, x)]);
  const inverse = t.emit('Where', [isZero, t.scalar(0, x), div(t, t.scalar(1, x), norm)]);
  return [mul(t, sub(t, g, mul(t, direction, along(mul(t, g, y)))), inverse)];
});
