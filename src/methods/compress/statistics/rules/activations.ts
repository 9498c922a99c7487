import { floatAttribute, intAttribute, stringAttribute } from '../../../../graph/nodes.js';
import { dtypeOf, isFloat } from '../../../../onnx/index.js';
import { cumulative } from '../../maths/normal.js';
import {
  affine,
  clamp,
  compose,
  elu,
  erf,
  leaky,
  sigmoid,
  softplus,
  tanhGelu,
} from '../elementwise.js';
import { elementwise, mapped, type Rule, refuse, smooth } from '../rule.js';

export const Identity: Rule = (c) => [c.tensor(0)];
export const Neg = elementwise(() => affine(-1, 0));
export const Relu = elementwise(() => leaky(0));
export const LeakyRelu = elementwise((node) => leaky(floatAttribute(node, 'alpha', 0.01)));
export const Abs = elementwise(() => leaky(-1));

/** With one slope for all channels. */
export const PRelu: Rule = async (c) => {
  const slopes = (await c.constant(1))?.values;
  if (!slopes?.length || slopes.some((slope) => slope !== slopes[0]))
    return refuse(c, 'a slope per channel');
  return [mapped(c, leaky(slopes[0]))];
};

export const Clip: Rule = async (c) => {
  const bound = async (name: string, index: number, absent: number) => {
    const constant = await c.constant(index);
    if (!constant && c.node.input[index]) refuse(c, `a computed ${name}`);
    return constant ? constant.values[0] : floatAttribute(c.node, name, absent);
  };
  const [low, high] = [await bound('min', 1, -Infinity), await bound('max', 2, Infinity)];
  return [mapped(c, clamp(low, high))];
};

/** min(max(alpha·u + beta, 0), 1) */
export const HardSigmoid = elementwise((node) =>
  compose(
    clamp(0, 1),
    affine(floatAttribute(node, 'alpha', 0.2), floatAttribute(node, 'beta', 0.5)),
  ),
);
export const HardSwish = smooth((u) => (u * Math.min(6, Math.max(0, u + 3))) / 6);
export const Sigmoid = smooth(sigmoid);
export const Tanh = smooth(Math.tanh);
export const Erf = smooth(erf);
export const Exp = smooth(Math.exp);
export const Softplus = smooth(softplus);
export const Softsign = smooth((u) => u / (1 + Math.abs(u)));
export const Mish = smooth((u) => u * Math.tanh(softplus(u)));
export const Swish = elementwise((node) => {
  const alpha = floatAttribute(node, 'alpha', 1);
  return { apply: (u) => u * sigmoid(alpha * u) };
});
export const Gelu = elementwise((node) => ({
  apply:
    stringAttribute(node, 'approximate', 'none') === 'tanh' ? tanhGelu : (u) => u * cumulative(u),
}));
export const Elu = elementwise((node) => {
  const alpha = floatAttribute(node, 'alpha', 1);
  return { apply: (u) => elu(u, alpha) };
});
export const Celu = elementwise((node) => {
  const alpha = floatAttribute(node, 'alpha', 1);
  return { apply: (u) => alpha * elu(u / alpha, 1) };
});
export const Selu = elementwise((node) => {
  const alpha = floatAttribute(node, 'alpha', 1.6732632423543772);
  const gamma = floatAttribute(node, 'gamma', 1.0507009873554805);
  return { apply: (u) => gamma * elu(u, alpha) };
});

/** Between floating-point types. */
export const Cast: Rule = (c) =>
  isFloat(dtypeOf(intAttribute(c.node, 'to', 0)))
    ? [c.tensor(0)]
    : refuse(c, 'a target that is no floating-point type');

/** As it is when the network is not being trained. */
export const Dropout = Identity;
