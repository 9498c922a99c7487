import { axisOf } from '../axes.js';
import { mul, reduceSum, sub } from '../emit.js';
import { single } from '../rule.js';

/** Along the axis: dx = h - y Σ h, where h = g y. */
export const Softmax = single((t, g, { node }) => {
  const [y] = node.output;
  const axis = axisOf(node, t.dims(y).length, -1);
  const h = mul(t, g, y);
  return [sub(t, h, mul(t, y, reduceSum(t, h, [axis], true)))];
});

/** Along the axis: dx = g - e^y Σ g. */
export const LogSoftmax = single((t, g, { node }) => {
  const [y] = node.output;
  const axis = axisOf(node, t.dims(y).length, -1);
  return [sub(t, g, mul(t, t.emit('Exp', [y]), reduceSum(t, g, [axis], true)))];
});
