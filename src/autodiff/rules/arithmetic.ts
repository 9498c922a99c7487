import { int } from '../../graph/build.js';
import { intAttribute } from '../../graph/nodes.js';
import { cast, div, minus, mul, neg, plus, scale, sub, unbroadcast, where } from '../emit.js';
import { elementwise, type Pullback, type Rule, refuse, single } from '../rule.js';
import type { Tape } from '../tape.js';

/** y = Σ x, broadcast: dx = g, summed over the stretched axes. */
export const Sum = single((t, g, p) => broadcast(t, p, () => g));

/** y = a + b, broadcast. */
export const Add = Sum;

/** y = mean of the inputs, broadcast: dx = g / n. */
export const Mean = single((t, g, p) => {
  const { input } = p.node;
  const share = scale(t, g, 1 / input.length, input[0]);
  return broadcast(t, p, () => share);
});

/** y = a - b, broadcast. */
export const Sub = single((t, g, { node: { input, output }, need }) => {
  const [a, b] = input;
  const from = t.dims(output[0]);
  return [
    need[0] ? unbroadcast(t, g, from, t.dims(a)) : undefined,
    need[1] ? neg(t, unbroadcast(t, g, from, t.dims(b))) : undefined,
  ];
});

/** y = ab, broadcast: da = g b, db = g a. */
export const Mul = single((t, g, p) => {
  const [a, b] = p.node.input;
  // One product where both factors are the same value: the sum of both gradients.
  if (a === b) return [scale(t, mul(t, g, a), 2, a), undefined];
  return broadcast(t, p, (i) => mul(t, g, i === 0 ? b : a));
});

/** y = a / b, broadcast: da = g / b, db = -(g / b) y. */
export const Div = single((t, g, { node: { input, output }, need }) => {
  const [a, b] = input;
  const from = t.dims(output[0]);
  const q = div(t, g, b);
  return [
    need[0] ? unbroadcast(t, q, from, t.dims(a)) : undefined,
    need[1] ? neg(t, unbroadcast(t, mul(t, q, output[0]), from, t.dims(b))) : undefined,
  ];
});

/** y = a - b n for a whole number n, broadcast: da = g, db = -g n, where n = (a - y) / b. */
export const Mod = single((t, g, p) => {
  const [a, b] = p.node.input;
  const [y] = p.node.output;
  return broadcast(t, p, (i) => (i === 0 ? g : mul(t, g, div(t, sub(t, y, a), b))));
});

/**
 * y = x^e, broadcast: dx = g e x^(e-1), de = g y log x. Where x is 0, de is 0; where e is 0, dx is 0.
 */
export const Pow = single((t, g, p) =>
  broadcast(t, p, (i) => {
    const [x, e] = p.node.input;
    if (i === 0) return mul(t, g, powerSlope(t, x, e, p.node.output[0]));
    const one = t.scalar(1, x);
    // Of 0 the logarithm is not taken: y log x is 0 there.
    const base = where(t, t.emit('Equal', [x, t.scalar(0, x)]), one, x);
    return mul(t, g, mul(t, p.node.output[0], t.emit('Log', [base])));
  }),
);

/** e x^(e-1). */
function powerSlope(t: Tape, x: string, e: string, y: string): string {
  const exponents = t.constant(e);
  const dims = t.dims(e);
  if (exponents && new Set(exponents).size === 1) {
    const [exponent] = exponents;
    // Of the exponent's own dims: it may stretch x.
    const factor = t.floats(exponents, dims, x);
    if (exponent === 2) return mul(t, x, factor);
    if (exponent === 0.5) return div(t, factor, y);
    const rest = t.floats(
      exponents.map((v) => (v === 0 ? 0 : v - 1)),
      dims,
      x,
    );
    return mul(t, t.emit('Pow', [x, rest]), factor);
  }
  const zero = t.scalar(0, x);
  const power = t.dtype(e) === t.dtype(x) ? e : cast(t, e, x);
  const rest = plus(t, power, -1, x);
  const isZero = t.emit('Equal', [power, zero]);
  // With exponent 0 the other factor would be infinite at x = 0.
  return mul(t, t.emit('Pow', [x, where(t, isZero, zero, rest)]), power);
}

const square = (t: Tape, x: string): string => mul(t, x, x);
const half = (t: Tape, x: string, like: string): string => scale(t, x, 0.5, like);
/** 1 - x². */
const oneLess = (t: Tape, x: string): string => minus(t, 1, square(t, x), x);
const root = (t: Tape, x: string): string => t.emit('Sqrt', [x]);

/** dx = -g. */
export const Neg = elementwise((t, g) => neg(t, g));

/** dx = g sign(x), 0 at 0. */
export const Abs = elementwise((t, g, x) => mul(t, g, t.emit('Sign', [x])));

/** dx = g / 2y. */
export const Sqrt = elementwise((t, g, x, y) => div(t, half(t, g, x), y));

/** y = 1 / x: dx = -g y². */
export const Reciprocal = elementwise((t, g, _, y) => neg(t, mul(t, g, square(t, y))));

/** dx = g y. */
export const Exp = elementwise((t, g, _, y) => mul(t, g, y));

/** dx = g / x. */
export const Log = elementwise((t, g, x) => div(t, g, x));

/** dx = g 2/√π exp(-x²). */
export const Erf = elementwise((t, g, x) =>
  mul(t, scale(t, g, 2 / Math.sqrt(Math.PI), x), t.emit('Exp', [neg(t, square(t, x))])),
);

/** dx = g cos x. */
export const Sin = elementwise((t, g, x) => mul(t, g, t.emit('Cos', [x])));

/** dx = -g sin x. */
export const Cos = elementwise((t, g, x) => neg(t, mul(t, g, t.emit('Sin', [x]))));

/** dx = g (1 + y²). */
export const Tan = elementwise((t, g, x, y) => mul(t, g, plus(t, square(t, y), 1, x)));

/** dx = g cosh x. */
export const Sinh = elementwise((t, g, x) => mul(t, g, t.emit('Cosh', [x])));

/** dx = g sinh x. */
export const Cosh = elementwise((t, g, x) => mul(t, g, t.emit('Sinh', [x])));

/** dx = g / √(1 - x²). */
export const Asin = elementwise((t, g, x) => div(t, g, root(t, oneLess(t, x))));

/** dx = -g / √(1 - x²). */
export const Acos = elementwise((t, g, x) => neg(t, div(t, g, root(t, oneLess(t, x)))));

/** dx = g / (1 + x²). */
export const Atan = elementwise((t, g, x) => div(t, g, plus(t, square(t, x), 1, x)));

/** dx = g / √(x² + 1). */
export const Asinh = elementwise((t, g, x) => div(t, g, root(t, plus(t, square(t, x), 1, x))));

/** dx = g / √(x² - 1). */
export const Acosh = elementwise((t, g, x) => div(t, g, root(t, plus(t, square(t, x), -1, x))));

/** dx = g / (1 - x²). */
export const Atanh = elementwise((t, g, x) => div(t, g, oneLess(t, x)));

/** Steps: their derivative is 0 wherever there is one, and no gradient is passed on. */
const flat: Rule = () => [];
export const Floor = flat;
export const Ceil = flat;
export const Round = flat;
export const Sign = flat;

/** The inputs that are the extremum share g evenly, broadcast. */
const extremum = single((t, g, p) => {
  const [y] = p.node.output;
  if (p.node.input.length === 1) return [g];
  const masks = p.node.input.map((x) => cast(t, t.emit('Equal', [x, y]), y));
  const share = div(t, g, t.emit('Sum', masks));
  return broadcast(t, p, (i) => mul(t, share, masks[i]));
});
export const Max = extremum;
export const Min = extremum;

/** y = a where c else b, broadcast: each takes the part of g that it gave. */
export const Where = single((t, g, p) => {
  const [c, a] = p.node.input;
  const zero = t.scalar(0, a);
  return broadcast(t, p, (i) => (i === 1 ? where(t, c, g, zero) : where(t, c, zero, g)));
});

/** From one floating type to another: dx = g, cast back. */
export const Cast = single((t, g, { node }) => [cast(t, g, node.input[0])]);

export const Identity = single((_, g) => [g]);

/** As it is in inference, where it does nothing. */
export const Dropout = single((t, g, { node }) => {
  const training = node.input[2];
  if (training && t.constant(training)?.[0] !== 0) refuse(node, 'training_mode');
  return [g];
});

/** y_i = Σ_{j≤i} x_j: dx is the cumulative sum of g from the other end. */
export const CumSum = single((t, g, { node }) => [
  t.emit(
    'CumSum',
    [g, node.input[1]],
    [
      int('exclusive', intAttribute(node, 'exclusive', 0)),
      int('reverse', 1 - intAttribute(node, 'reverse', 0)),
    ],
  ),
]);

/** Sums what `gradient` makes for each input that needs it, of the output's dims, to that input's own. */
function broadcast(
  t: Tape,
  { node: { input, output }, need }: Pullback,
  gradient: (index: number) => string,
): (string | undefined)[] {
  const from = t.dims(output[0]);
  return input.map((x, i) => (need[i] ? unbroadcast(t, gradient(i), from, t.dims(x)) : undefined));
}
