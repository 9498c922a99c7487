/** Of ONNX Runtime's own domain, com.microsoft. */
import { floatAttribute } from '../../../../graph/nodes.js';
import { sigmoid, tanhGelu } from '../elementwise.js';
import { elementwise, mapped, type Rule, refuse } from '../rule.js';

export { Gelu } from './activations.js';

export const FastGelu: Rule = (c) =>
  c.node.input[1] ? refuse(c, 'a bias') : [mapped(c, { apply: tanhGelu })];

export const QuickGelu = elementwise((node) => {
  const alpha = floatAttribute(node, 'alpha', 1.702);
  return { apply: (u) => u * sigmoid(alpha * u) };
});
