import { intsAttribute, opName } from '../../../graph/nodes.js';
import type { NodeProto } from '../../../onnx/index.js';
import { type ChannelTensor, lose } from './channel-tensor.js';
import type { ConstantArray } from './constants.js';
import type { Elementwise } from './elementwise.js';
import type { Source } from './layers.js';
import type { Layout } from './layout.js';

/** What a rule is given. */
export interface RuleContext {
  node: NodeProto;
  source: Source;
  /** The activation that an input is. @throws {LostSignal} when its moments are not known */
  tensor(index: number): ChannelTensor;
  /** The constant that an input is; undefined for activations and what is left out. */
  constant(index: number): Promise<ConstantArray | undefined>;
  /** Dims of an input or output. @throws {LostSignal} when they are not known */
  dims(name: string): readonly number[];
}

/**
 * What an op makes of the moments of its inputs: a tensor for each output that has channels.
 * @throws {LostSignal} for forms that it does not follow
 */
export type Rule = (c: RuleContext) => ChannelTensor[] | Promise<ChannelTensor[]>;

/** A layout of output `index`, whose dims are known. */
export const outputLayout = (c: RuleContext, axis: number, index = 0): Layout => ({
  dims: c.dims(c.node.output[index]),
  axis,
});

/** The same values in the output's dims, channels and all on the axes that they were on. */
export const sameAxes = (c: RuleContext, { values, layout }: ChannelTensor): ChannelTensor => ({
  values,
  layout: { ...layout, dims: c.dims(c.node.output[0]) },
});

/** Integers that are an attribute in some opsets and a constant input in others. */
export async function integers(
  c: RuleContext,
  name: string,
  index: number,
): Promise<number[] | undefined> {
  const listed = intsAttribute(c.node, name);
  if (listed) return listed;
  const constant = await c.constant(index);
  if (!constant && c.node.input[index]) refuse(c, `computed ${name}`);
  return constant && Array.from(constant.values);
}

/** Gives up on a node, as in `Pad with mode wrap`. */
export const refuse = ({ node }: RuleContext, form: string): never =>
  lose(`${opName(node)} with ${form}`);

export const wrapAxis = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** The rule of an op that treats every element alike. */
export const elementwise =
  (f: (node: NodeProto) => Elementwise): Rule =>
  (c) => [mapped(c, f(c.node))];

/** f of input 0, element by element. */
export function mapped(c: RuleContext, f: Elementwise) {
  const { values, layout } = c.tensor(0);
  return { values: values.map(f), layout };
}

export const smooth = (apply: (u: number) => number): Rule => elementwise(() => ({ apply }));
