import { intAttribute, intsAttribute } from '../../../../graph/nodes.js';
import { type ChannelTensor, ChannelValues } from '../channel-tensor.js';
import { reshapedLayout } from '../layout.js';
import {
  integers,
  outputLayout,
  type Rule,
  type RuleContext,
  refuse,
  sameAxes,
  wrapAxis,
} from '../rule.js';
import { concatSignals, selectChannels } from '../signals.js';

/** The same values in another shape. */
const reshaped: Rule = (c) => {
  const { values, layout } = c.tensor(0);
  const after = reshapedLayout(layout, c.dims(c.node.output[0]));
  return after ? [{ values, layout: after }] : refuse(c, 'a shape that takes channels apart');
};

export const Reshape = reshaped;
export const Flatten = reshaped;
export const Squeeze = reshaped;
export const Unsqueeze = reshaped;

export const Transpose: Rule = (c) => {
  const { values, layout } = c.tensor(0);
  const rank = layout.dims.length;
  const perm = intsAttribute(c.node, 'perm') ?? layout.dims.map((_, i) => rank - 1 - i);
  const dims = perm.map((from) => layout.dims[from]);
  return [{ values, layout: { ...layout, dims, axis: perm.indexOf(layout.axis) } }];
};

/** Of positions: what it adds is left out of account. */
export const Pad: Rule = async (c) => {
  const tensor = c.tensor(0);
  const { axis, dims } = tensor.layout;
  const pads = await integers(c, 'pads', 1);
  const listed = (await c.constant(3))?.values;
  const axes = listed ? Array.from(listed, (a) => wrapAxis(a, dims.length)) : [...dims.keys()];
  const k = axes.indexOf(axis);
  if (!pads || (k >= 0 && (pads[k] !== 0 || pads[k + axes.length] !== 0)))
    return refuse(c, 'channels added');
  return [sameAxes(c, tensor)];
};

/** Of positions. */
export const Resize: Rule = (c) => {
  const tensor = c.tensor(0);
  const after = sameAxes(c, tensor);
  const { axis } = tensor.layout;
  if (after.layout.dims[axis] !== tensor.layout.dims[axis]) refuse(c, 'channels resized');
  return [after];
};
export const Upsample = Resize;

/** Channels of different inputs are taken to be uncorrelated. */
export const Concat: Rule = (c) => {
  const parts = c.node.input.map((_, i) => c.tensor(i));
  const [{ layout, values }] = parts;
  const axis = wrapAxis(intAttribute(c.node, 'axis', 1), layout.dims.length);
  if (parts.some((part) => part.layout.axis !== axis || part.layout.folded))
    return refuse(c, 'an axis that is not that of channels');
  const joined = concatSignals(parts.map((part) => part.values.keptSignal));
  return [{ values: ChannelValues.of(joined, values.r), layout: outputLayout(c, axis) }];
};

function selected(
  c: RuleContext,
  { values, layout }: ChannelTensor,
  indices: ArrayLike<number>,
  output = 0,
): ChannelTensor {
  if (layout.folded) refuse(c, 'positions flattened into the channels');
  const taken = selectChannels(values.keptSignal, indices);
  return {
    values: ChannelValues.of(taken, values.r),
    layout: outputLayout(c, layout.axis, output),
  };
}

export const Split: Rule = (c) => {
  const tensor = c.tensor(0);
  const { layout } = tensor;
  const axis = wrapAxis(intAttribute(c.node, 'axis', 0), layout.dims.length);
  let start = 0;
  return c.node.output.map((name, i) => {
    const dims = c.dims(name);
    if (axis !== layout.axis) return { ...tensor, layout: { ...layout, dims } };
    const first = start;
    start += dims[axis];
    return selected(c, tensor, run(first, 1, dims[axis]), i);
  });
};

const run = (first: number, step: number, count: number): Uint32Array =>
  Uint32Array.from({ length: count }, (_, i) => first + step * i);

export const Slice: Rule = async (c) => {
  const tensor = c.tensor(0);
  const { dims, axis } = tensor.layout;
  const starts = await integers(c, 'starts', 1);
  if (!starts) return refuse(c, 'no starts');
  const axes = (await integers(c, 'axes', 3)) ?? [...starts.keys()];
  const k = axes.findIndex((a) => wrapAxis(a, dims.length) === axis);
  if (k < 0) return [sameAxes(c, tensor)];
  const step = (await integers(c, 'steps', 4))?.[k] ?? 1;
  const size = dims[axis];
  const start = starts[k] < 0 ? starts[k] + size : starts[k];
  const first = Math.min(step < 0 ? size - 1 : size, Math.max(0, start));
  return [selected(c, tensor, run(first, step, c.dims(c.node.output[0])[axis]))];
};

export const Gather: Rule = async (c) => {
  const tensor = c.tensor(0);
  const { dims, axis } = tensor.layout;
  const along = wrapAxis(intAttribute(c.node, 'axis', 0), dims.length);
  const indices = await c.constant(1);
  if (along !== axis || indices?.dims.length !== 1)
    return refuse(c, 'indices that are not a list of channels');
  return [
    selected(
      c,
      tensor,
      indices.values.map((index) => wrapAxis(index, dims[axis])),
    ),
  ];
};
