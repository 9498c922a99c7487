import { float } from '../../src/graph/build.js';
import type { AttributeProto } from '../../src/onnx/index.js';
import { node } from '../support/protos.js';
import type { GradientCase, InputCase, Reference } from './check-gradient.js';

/** Slopes of y = f(x) by central differences of `f` in doubles: an oracle where ONNX Runtime has no float64 kernel. */
export const slopes =
  (f: (x: number) => number): Reference =>
  ({ x }, { y }) => ({ x: x.map((v, i) => y[i] * slope(f, v)) });

function slope(f: (x: number) => number, x: number): number {
  const h = 1e-3;
  return (f(x - 2 * h) - f(x + 2 * h) + 8 * (f(x + h) - f(x - h))) / (12 * h);
}

/** An op of one input x with attributes that are floats. */
export const unary = (
  op: string,
  x: InputCase,
  more: Partial<GradientCase> & { floats?: Record<string, number> } = {},
): GradientCase => {
  const { floats = {}, ...rest } = more;
  const attribute: AttributeProto[] = Object.entries(floats).map(([name, v]) => float(name, v));
  return {
    name: `${op} ${JSON.stringify(floats)} [${x.dims}]`,
    nodes: [node(op, ['x'], ['y'], {}, { attribute })],
    inputs: { x },
    ...rest,
  };
};

/** erf by its Taylor series, for |x| < 4. */
export function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 80; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
