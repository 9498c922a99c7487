import { intAttribute } from '../../graph/nodes.js';
import { axesOf } from '../axes.js';
import {
  cast,
  div,
  expand,
  mul,
  product,
  reduceSum,
  reshapeFrom,
  sameDims,
  scale,
  sub,
  where,
} from '../emit.js';
import { type Pullback, type Rule, single } from '../rule.js';
import type { Tape } from '../tape.js';

/** One reduction of a graph, and what its rules need. */
interface Reduction {
  t: Tape;
  x: string;
  y: string;
  /** dL/dy in the dims of y. */
  g: string;
  axes: readonly number[];
  /** Elements that are reduced to one. */
  count: number;
  /** `v`, of the dims of y, with axes of size 1 where x was reduced, so that it stretches to x. */
  facing: (v: string) => string;
  /** `v`, of the dims of y, repeated to the dims of x. */
  stretched: (v: string) => string;
}

const reduction = (rule: (r: Reduction, p: Pullback) => string): Rule =>
  single((t, g, p) => {
    const { node } = p;
    const [x] = node.input;
    const [y] = node.output;
    const dims = t.dims(x);
    const axes = reducedAxes(t, p, dims.length);
    const kept = dims.map((d, i) => (axes.includes(i) ? 1 : d));
    const facing = (v: string) => reshapeFrom(t, v, t.dims(y), kept);
    const count = product(axes.map((axis) => dims[axis]));
    const stretched = (v: string) =>
      sameDims(kept, dims) ? facing(v) : expand(t, facing(v), dims);
    return [rule({ t, x, y, g, axes, count, facing, stretched }, p)];
  });

/** No axes are all axes, or none where the node says so. */
function reducedAxes(t: Tape, { node }: Pullback, rank: number): number[] {
  const axes = axesOf(t, node, rank);
  if (axes?.length || intAttribute(node, 'noop_with_empty_axes', 0)) return axes ?? [];
  return Array.from({ length: rank }, (_, i) => i);
}

/** dx = g, stretched. */
export const ReduceSum = reduction(({ g, stretched }) => stretched(g));

/** dx = g / n, stretched. */
export const ReduceMean = reduction(({ t, x, g, count, stretched }) =>
  stretched(scale(t, g, 1 / count, x)),
);

/** The elements that are the extremum share g evenly. */
const extremum = reduction(({ t, x, y, g, axes, facing }) => {
  const mask = t.emit('Equal', [x, facing(y)]);
  const isExtremum = cast(t, mask, x);
  const ties = reduceSum(t, isExtremum, axes, true);
  return mul(t, isExtremum, div(t, facing(g), ties));
});
export const ReduceMax = extremum;
export const ReduceMin = extremum;

/** y = Σ |x|: dx = g sign(x). */
export const ReduceL1 = reduction(({ t, x, g, facing }) => mul(t, t.emit('Sign', [x]), facing(g)));

/** y = √Σ x²: dx = x g / y, 0 where y is 0. */
export const ReduceL2 = reduction(({ t, x, y, g, facing }) => {
  const zero = t.scalar(0, x);
  const factor = where(t, t.emit('Equal', [y, zero]), zero, div(t, g, y));
  return mul(t, x, facing(factor));
});

/** y = Σ x²: dx = 2 g x. */
export const ReduceSumSquare = reduction(({ t, x, g, facing }) =>
  mul(t, x, facing(scale(t, g, 2, x))),
);

/** y = log Σ x: dx = g / e^y, stretched. */
export const ReduceLogSum = reduction(({ t, y, g, stretched }) =>
  stretched(div(t, g, t.emit('Exp', [y]))),
);

/** y = log Σ e^x: dx = g e^(x - y). */
export const ReduceLogSumExp = reduction(({ t, x, y, g, facing }) =>
  mul(t, t.emit('Exp', [sub(t, x, facing(y))]), facing(g)),
);

/**
 * y = Π x: dx = g times the product of the others: p / x, where p leaves out zeros; 0 where another
 * element is 0.
 */
export const ReduceProd = reduction(({ t, x, g, axes, facing }, { node }) => {
  const isZero = t.emit('Equal', [x, t.scalar(0, x)]);
  const divisor = where(t, isZero, t.scalar(1, x), x);
  // As the node itself is written, whose form depends on the opset.
  const others = t.emit('ReduceProd', [divisor, ...node.input.slice(1)], node.attribute);
  const zero = cast(t, isZero, x);
  const onlyZero = t.emit('Equal', [zero, reduceSum(t, zero, axes, true)]);
  const slope = div(t, facing(mul(t, g, others)), divisor);
  return where(t, onlyZero, slope, t.scalar(0, x));
});
