import type { NodeProto } from '../../../onnx/index.js';
import { intAttribute, opName } from '../../nodes.js';
import {
  type ChannelAnalysis,
  type Refusal,
  type Rule,
  type Tracked,
  wrapAxis,
} from '../analysis.js';

/** Ops that treat every element alone, and broadcast what they combine. */
const elementwiseOps = [
  'Abs Add And Cast Ceil Celu Clip Cos Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual',
  'HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mul Neg Not Or PRelu Pow',
  'Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh',
  'ThresholdedRelu Where Xor com.microsoft.Gelu com.microsoft.QuickGelu',
].flatMap((line) => line.split(' '));

export const elementwiseRules: Record<string, Rule> = {
  ...Object.fromEntries(elementwiseOps.map((op) => [op, elementwise])),
  Softmax: softmax,
  LogSoftmax: softmax,
  BatchNormalization: (a, node) => normalization(a, node, [1, 2, 3, 4]),
  InstanceNormalization: (a, node) => normalization(a, node, [1, 2]),
};

/** Inputs of equal channels become one; constants with channels are cut along with them. */
function elementwise(a: ChannelAnalysis, node: NodeProto): Refusal {
  const named = node.input.filter(Boolean);
  const tracked = named.flatMap((name) => a.values.get(name) ?? []);
  if (tracked.length === 0) return;
  const main = tracked.reduce((best, t) => (t.ids.length > best.ids.length ? t : best));
  const ranks = named.map((name) => rankOf(a, node, name));
  const rank = Math.max(...ranks.map((r) => r ?? Number.POSITIVE_INFINITY));
  if (rank === Number.POSITIVE_INFINITY)
    return `${opName(node)} combines it with a value of unknown shape`;
  // Axes are counted from the end, as broadcasting does.
  const fromEnd = main.rank - main.axis;

  for (const other of tracked) {
    const aligned = other.rank - other.axis === fromEnd;
    if (aligned && other.ids.length === main.ids.length) a.unify(main.ids, other.ids);
    else if (aligned && other.ids.length === 1)
      a.block(other.ids, `${opName(node)} broadcasts it over other channels`);
    else return `${opName(node)} combines it with channels on another axis`;
  }
  for (const [index, name] of node.input.entries()) {
    if (!name || a.values.has(name)) continue;
    const view = a.view(node, index);
    const dims = view ? view.axes.map(({ size }) => size) : a.dims(name);
    const size = dims && (dims[dims.length - fromEnd] ?? 1);
    if (size === 1) continue;
    if (!view || size !== main.ids.length)
      return `${opName(node)} combines it with a value that is not followed`;
    const problem = a.problem(node, index);
    if (problem) return `a constant of ${opName(node)} ${problem}`;
    const axis = view.axes.length - fromEnd;
    a.parameters.push({ role: 'parameter', node, input: index, view, axis, ids: main.ids });
  }
  for (const name of node.output) a.define(name, { ...main, rank, axis: rank - fromEnd });
}

const rankOf = (a: ChannelAnalysis, node: NodeProto, name: string): number | undefined =>
  a.values.get(name)?.rank ??
  a.view(node, node.input.indexOf(name))?.axes.length ??
  a.dims(name)?.length;

function softmax(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  // Before opset 13 it ran over all axes from the given one on.
  const axis = wrapAxis(intAttribute(node, 'axis', a.opset < 13 ? 1 : -1), x.rank);
  if (a.opset < 13 ? x.axis >= axis : x.axis === axis)
    return `${opName(node)} runs over its channels`;
  a.define(node.output[0], x);
}

/** A normalisation of each channel by itself, with parameters `[C]` at the given inputs. */
function normalization(a: ChannelAnalysis, node: NodeProto, inputs: readonly number[]): Refusal {
  const x: Tracked | undefined = a.tracked(node, 0);
  if (!x) return `it is a parameter of ${opName(node)}`;
  if (x.axis !== 1) return `${opName(node)} runs over its channels`;
  if (node.output.slice(1).some(Boolean)) return `${opName(node)} is in training mode`;
  for (const input of inputs) {
    const problem = a.problem(node, input);
    if (problem) return `a parameter of ${opName(node)} ${problem}`;
  }
  for (const input of inputs) {
    const view = a.view(node, input);
    if (view?.axes[0]?.size !== x.ids.length)
      return `a parameter of ${opName(node)} does not fit it`;
    a.parameters.push({ role: 'parameter', node, input, view, axis: 0, ids: x.ids });
  }
  a.define(node.output[0], x);
}
