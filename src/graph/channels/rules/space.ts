import type { NodeProto } from '../../../onnx/index.js';
import { attribute, intAttribute, intsAttribute, opName } from '../../nodes.js';
import { type ChannelAnalysis, type Refusal, type Rule, wrapAxis } from '../analysis.js';
import { same } from './layout.js';

const poolingOps = 'MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool'.split(
  ' ',
);
const reductionOps = [
  'ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceL1 ReduceL2 ReduceSumSquare',
  'ReduceLogSum ReduceLogSumExp',
].flatMap((line) => line.split(' '));

/** Ops that work on other axes than that of the channels. */
export const spaceRules: Record<string, Rule> = {
  ...Object.fromEntries(poolingOps.map((op) => [op, pool])),
  ...Object.fromEntries(reductionOps.map((op) => [op, reduce])),
  Pad: pad,
  Resize: (a, node) => resize(a, node, 2),
  Upsample: (a, node) => resize(a, node, 1),
  Expand: expand,
  Tile: tile,
};

function pool(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  if (x.axis !== 1) return `${opName(node)} runs over its channels`;
  if (node.output[1]) return 'MaxPool puts out indices';
  a.define(node.output[0], x);
}

function reduce(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  const axes = a.ints(node, 1, 'axes')?.map((axis) => wrapAxis(axis, x.rank));
  if (node.input[1] && !axes) return `${opName(node)} over axes that are computed`;
  if (!axes?.length) {
    if (intAttribute(node, 'noop_with_empty_axes', 0) === 0)
      return `${opName(node)} runs over its channels`;
    a.define(node.output[0], x);
    return;
  }
  if (axes.includes(x.axis)) return `${opName(node)} runs over its channels`;
  const dropped = intAttribute(node, 'keepdims', 1) !== 0 ? [] : axes;
  const axis = x.axis - dropped.filter((reduced) => reduced < x.axis).length;
  a.define(node.output[0], { ...x, axis, rank: x.rank - dropped.length });
}

function pad(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  const pads = a.ints(node, 1, 'pads');
  const named = node.input[3] ? a.ints(node, 3) : undefined;
  if (!pads || (node.input[3] && !named)) return 'Pad by numbers that are computed';
  const axes = named?.map((axis) => wrapAxis(axis, x.rank));
  const i = axes ? axes.indexOf(x.axis) : x.axis;
  if (i >= 0 && (pads[i] || pads[i + pads.length / 2])) return 'Pad adds or removes channels';
  a.define(node.output[0], x);
}

/** @param scales which input holds the factors; the sizes follow */
function resize(a: ChannelAnalysis, node: NodeProto, scalesFrom: 1 | 2): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  const named = intsAttribute(node, 'axes')?.map((axis) => wrapAxis(axis, x.rank));
  const i = named ? named.indexOf(x.axis) : x.axis;
  const sizes = node.input[3] ? a.inputVector(node, 3) : undefined;
  if (node.input[3] && i >= 0) {
    const dim = sizes?.[i];
    if (dim?.kind === 'literal' && dim.value === x.ids.length)
      a.counts.push({ place: dim.place, index: dim.index, ids: x.ids });
    else if (dim?.kind !== 'channels' || !same(a, dim.ids, x.ids))
      return 'Resize to a number of channels that is computed';
    if (sizes?.some((other, at) => at !== i && other.kind === 'channels'))
      return 'Resize copies its length to another axis';
  } else if (i >= 0) {
    // With opset 10 the factors were the second input. The length afterwards tells what they are.
    const length = a.dims(node.output[0])?.[x.axis];
    if (length !== x.ids.length) return `${opName(node)} by factors that are not known`;
    if (!a.view(node, a.opset < 11 ? 1 : scalesFrom) && !attribute(node, 'scales'))
      return `${opName(node)} by factors that are computed`;
  }
  a.define(node.output[0], x);
}

function expand(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  const target = a.inputVector(node, 1);
  if (!target) return 'Expand to a shape that is computed';
  const rank = Math.max(x.rank, target.length);
  const axis = rank - (x.rank - x.axis);
  const i = target.length - (x.rank - x.axis);
  const dim = i >= 0 ? target[i] : undefined;
  if (target.some((other, at) => at !== i && other.kind === 'channels'))
    return 'Expand copies its length to another axis';
  if (dim?.kind === 'literal' && dim.value === x.ids.length && dim.value > 1)
    a.counts.push({ place: dim.place, index: dim.index, ids: x.ids });
  else if (dim?.kind === 'channels' ? !same(a, dim.ids, x.ids) : dim && !isOne(dim))
    return 'Expand to another number of channels';
  a.define(node.output[0], { ...x, axis, rank });
}

const isOne = (dim: { kind: string; value?: number }): boolean =>
  dim.kind === 'literal' && dim.value === 1;

function tile(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  if (a.ints(node, 1)?.[x.axis] !== 1) return 'Tile repeats its channels';
  a.define(node.output[0], x);
}
