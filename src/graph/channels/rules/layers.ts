import type { NodeProto } from '../../../onnx/index.js';
import { intAttribute, opName } from '../../nodes.js';
import { type ChannelAnalysis, type Refusal, type Rule, repeated } from '../analysis.js';

export const layerRules: Record<string, Rule> = {
  Conv: (a, node) => convolution(a, node, 0, 1),
  ConvTranspose: (a, node) => convolution(a, node, 1, 0),
  MatMul: matrixProduct,
  Gemm: matrixProduct,
};

/**
 * A convolution with weight `[out, in/group, ...]`, transposed `[in, out/group, ...]`.
 * @param outAxis axis of the output channels
 */
function convolution(a: ChannelAnalysis, node: NodeProto, outAxis: 0 | 1, inAxis: 0 | 1): Refusal {
  const x = a.tracked(node, 0);
  const view = a.view(node, 1);
  if (!view || view.axes.length < 3 || !fits(a, node))
    return `the weight of ${opName(node)} ${a.problem(node, 1) ?? 'does not fit'}`;
  const rank = view.axes.length;
  const groups = intAttribute(node, 'group', 1);
  const lengths = [view.axes[0].size, view.axes[1].size * groups];
  const [outputs, inputs] = [lengths[outAxis], lengths[inAxis]];
  if (x && (x.axis !== 1 || x.ids.length !== inputs))
    return `${opName(node)} reads it along another axis`;

  const depthwise = groups > 1 && inputs === groups;
  const ids = depthwise && x ? repeated(x.ids, outputs / groups) : a.start(outputs);
  a.define(node.output[0], { axis: 1, rank, ids, repeat: 1 });
  if (depthwise && !x) a.block(ids, 'a depthwise convolution of channels that are not followed');
  const problem = a.problem(node, 1) ?? (node.input[2] ? a.problem(node, 2) : undefined);
  const refusal = problem && `a weight of ${opName(node)} ${problem}`;
  if (refusal) a.block(ids, refusal);

  const weight = { node, input: 1, view };
  if (depthwise && x) {
    // Both layouts have the channel along the first axis, and the multiplier beside it or in it.
    const along = outAxis === 0 ? ids : x.ids;
    a.parameters.push({ ...weight, role: 'parameter', axis: 0, ids: along });
    a.counts.push({ place: { node, attribute: 'group' }, ids: x.ids });
  } else {
    a.parameters.push({ ...weight, role: 'producer', axis: outAxis, ids });
    if (groups > 1) a.balances.push({ ids, parts: groups });
    if (x) {
      const tensor = node.input[0];
      a.parameters.push({ ...weight, role: 'consumer', axis: inAxis, ids: x.ids, tensor });
      if (groups > 1) a.balances.push({ ids: x.ids, parts: groups });
    }
  }
  const bias = a.view(node, 2);
  if (bias) a.parameters.push({ role: 'parameter', node, input: 2, view: bias, axis: 0, ids });
  return refusal;
}

/** Whether weight, bias and the number of groups agree. */
function fits(a: ChannelAnalysis, node: NodeProto): boolean {
  const [first, second] = a.view(node, 1)?.axes.map(({ size }) => size) ?? [];
  const groups = intAttribute(node, 'group', 1);
  const outputs = opName(node) === 'Conv' ? first : second * groups;
  const bias = a.view(node, 2);
  return (
    groups >= 1 && first % groups === 0 && (!bias || bias.axes[0]?.size === outputs) && outputs > 0
  );
}

/** `x W` with a stored matrix on the right: features run along the last axis. */
function matrixProduct(a: ChannelAnalysis, node: NodeProto): Refusal {
  const op = opName(node);
  const x = a.tracked(node, 0);
  const view = a.view(node, 1);
  if (!view)
    return a.view(node, 0)
      ? `${op} multiplies it from the left`
      : `the matrix that ${op} multiplies it by ${a.problem(node, 1)}`;
  const rank = op === 'Gemm' ? 2 : (x?.rank ?? a.shapes.get(node.input[0])?.dims?.length);
  if (view.axes.length !== 2 || intAttribute(node, 'transA', 0) !== 0 || !rank || rank < 2)
    return `${op} is no product of features and a matrix`;
  const outAxis = intAttribute(node, 'transB', 0) !== 0 ? 0 : 1;
  const inAxis = 1 - outAxis;
  if (x && (x.axis !== rank - 1 || x.ids.length !== view.axes[inAxis].size))
    return `${op} reads it along another axis`;

  const ids = a.start(view.axes[outAxis].size);
  a.define(node.output[0], { axis: rank - 1, rank, ids, repeat: 1 });
  const bias = a.view(node, 2);
  const biasAxis = (bias?.axes.length ?? 0) - 1;
  const problem = a.problem(node, 1) ?? (node.input[2] ? a.problem(node, 2) : undefined);
  const refusal = problem && `a weight of ${op} ${problem}`;
  if (refusal) a.block(ids, refusal);
  const weight = { node, input: 1, view };
  a.parameters.push({ ...weight, role: 'producer', axis: outAxis, ids });
  if (x) {
    const tensor = node.input[0];
    a.parameters.push({ ...weight, role: 'consumer', axis: inAxis, ids: x.ids, tensor });
  }
  const size = bias?.axes[biasAxis]?.size ?? 1;
  if (!bias || size === 1) return refusal;
  if (size !== ids.length) a.block(ids, `the bias of ${op} does not fit`);
  else a.parameters.push({ role: 'parameter', node, input: 2, view: bias, axis: biasAxis, ids });
  return refusal;
}
