import { intAttribute, intsAttribute } from '../../../../graph/nodes.js';
import { type ChannelTensor, ChannelValues } from '../channel-tensor.js';
import { meanCorrelation, positionAxes } from '../layout.js';
import { integers, outputLayout, type Rule, type RuleContext, refuse, wrapAxis } from '../rule.js';
import { shrinkSignal } from '../signals.js';

/** Passed on as it is: an approximation, for the greatest of several is larger than one. */
export const MaxPool: Rule = (c) => [{ ...c.tensor(0), layout: outputLayout(c, 1) }];
export const GlobalMaxPool = MaxPool;

export const AveragePool: Rule = (c) => {
  const { values } = c.tensor(0);
  const kernel = intsAttribute(c.node, 'kernel_shape') ?? [];
  return [averaged(c, values, kernel, 1)];
};

export const GlobalAveragePool: Rule = (c) => {
  const { values, layout } = c.tensor(0);
  return [averaged(c, values, layout.dims.slice(2), 1)];
};

export const ReduceMean: Rule = async (c) => {
  const { values, layout } = c.tensor(0);
  const rank = layout.dims.length;
  const axes = (await integers(c, 'axes', 1))?.map((axis) => wrapAxis(axis, rank)) ?? [];
  const positions = positionAxes(layout);
  if (axes.length === 0 || axes.some((axis) => !positions.includes(axis)))
    return refuse(c, 'axes that are not those of positions');
  const gone = intAttribute(c.node, 'keepdims', 1) ? [] : axes.filter((a) => a < layout.axis);
  const sizes = axes.map((axis) => layout.dims[axis]);
  const mean = averaged(c, values, sizes, layout.axis - gone.length);
  return [{ ...mean, layout: { ...mean.layout, folded: layout.folded } }];
};

function averaged(
  c: RuleContext,
  values: ChannelValues,
  sizes: readonly number[],
  axis: number,
): ChannelTensor {
  const signal = shrinkSignal(values.signal, meanCorrelation(sizes, values.r));
  return {
    values: ChannelValues.of({ signal, kept: values.kept }, values.r),
    layout: outputLayout(c, axis),
  };
}
