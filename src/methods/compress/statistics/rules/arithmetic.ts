import { addSignals } from '../../maths/moments.js';
import { type ChannelTensor, ChannelValues } from '../channel-tensor.js';
import type { ConstantArray } from '../constants.js';
import { affine, type Elementwise } from '../elementwise.js';
import type { Layout } from '../layout.js';
import { type Rule, type RuleContext, refuse } from '../rule.js';
import { affineSignal, multiplySignals } from '../signals.js';

/** A constant operand: one number, or one per channel. */
type Operand = { number: number } | { perChannel: Float64Array };

/** A constant as an operand of `tensor`, by the rules of broadcasting. */
function operand(c: RuleContext, { dims, values }: ConstantArray, tensor: ChannelTensor): Operand {
  if (values.length === 1) return { number: values[0] };
  const { layout } = tensor;
  const fromEnd = layout.dims.length - layout.axis;
  const isVector = dims.every((size, i) => size === 1 || i === dims.length - fromEnd);
  if (!isVector || layout.folded || values.length !== tensor.values.channels)
    refuse(c, 'a constant that is not one per channel');
  return { perChannel: values };
}

/** scale·x + shift, per channel. */
function affinePerChannel(x: ChannelTensor, scale: Float64Array, shift: Float64Array) {
  const { values, layout } = x;
  const signal = affineSignal(values.signal, scale, shift, values.kept);
  return { values: ChannelValues.of({ signal, kept: values.kept }, values.r), layout };
}

const map = ({ values, layout }: ChannelTensor, f: Elementwise): ChannelTensor => ({
  values: values.map(f),
  layout,
});

const constantArray = (x: ChannelTensor, value: number) =>
  new Float64Array(x.values.channels).fill(value);

/** x + factor·constant */
function shifted(x: ChannelTensor, by: Operand, factor: number): ChannelTensor {
  if ('number' in by) return map(x, affine(1, factor * by.number));
  return affinePerChannel(
    x,
    constantArray(x, 1),
    by.perChannel.map((value) => factor * value),
  );
}

/** x·constant, or x/constant */
function scaled(x: ChannelTensor, by: Operand, power: 1 | -1): ChannelTensor {
  if ('number' in by) return map(x, affine(by.number ** power, 0));
  return affinePerChannel(
    x,
    by.perChannel.map((value) => value ** power),
    constantArray(x, 0),
  );
}

type Operands =
  | { tensors: [ChannelTensor, ChannelTensor] }
  | { tensor: ChannelTensor; by: Operand; tensorFirst: boolean };

async function operands(c: RuleContext): Promise<Operands> {
  const [left, right] = [await c.constant(0), await c.constant(1)];
  if (right) {
    const tensor = broadcast(c, c.tensor(0));
    return { tensor, by: operand(c, right, tensor), tensorFirst: true };
  }
  if (left) {
    const tensor = broadcast(c, c.tensor(1));
    return { tensor, by: operand(c, left, tensor), tensorFirst: false };
  }
  return { tensors: sameChannels(c, c.tensor(0), c.tensor(1)) };
}

/** A tensor in the dims of the output, to which it was broadcast. */
function broadcast(c: RuleContext, { values, layout }: ChannelTensor): ChannelTensor {
  const dims = c.dims(c.node.output[0]);
  const axis = layout.axis + dims.length - layout.dims.length;
  if (dims[axis] !== layout.dims[layout.axis]) refuse(c, 'an operand that repeats its channel');
  return { values, layout: { ...layout, dims, axis } };
}

const foldedBefore = ({ folded }: Layout): string =>
  folded ? `${folded.channelsFirst} ${folded.sizes.join()}` : '';

function sameChannels(
  c: RuleContext,
  a: ChannelTensor,
  b: ChannelTensor,
): [ChannelTensor, ChannelTensor] {
  const [left, right] = [broadcast(c, a), broadcast(c, b)];
  if (
    left.layout.axis !== right.layout.axis ||
    foldedBefore(left.layout) !== foldedBefore(right.layout)
  )
    refuse(c, 'channels on different axes');
  const [kept, other] = [left.values.kept?.join(), right.values.kept?.join()];
  if (kept !== other)
    throw new Error(`${c.node.output[0]}: different channels are left of what it combines`);
  return [left, right];
}

/** Of two tensors: exact for functions of the same elements, else `independent`. */
function combined(
  [a, b]: [ChannelTensor, ChannelTensor],
  f: (x: number, y: number) => number,
  independent: (x: ChannelValues, y: ChannelValues) => ChannelValues,
): ChannelTensor {
  const values = a.values.combine(b.values, f) ?? independent(a.values, b.values);
  return { values, layout: a.layout };
}

const add = (pair: [ChannelTensor, ChannelTensor]): ChannelTensor =>
  combined(
    pair,
    (x, y) => x + y,
    (x, y) =>
      ChannelValues.of({ signal: addSignals(x.signal, y.signal), kept: x.kept }, joint(x, y)),
  );

/** The correlation of positions in a combination of two tensors. */
const joint = (x: ChannelValues, y: ChannelValues): number => (x.r + y.r) / 2;

/** Of two tensors: taken to be uncorrelated. */
export const Add: Rule = async (c) => {
  const given = await operands(c);
  if ('tensors' in given) return [add(given.tensors)];
  return [shifted(given.tensor, given.by, 1)];
};

export const Sub: Rule = async (c) => {
  const given = await operands(c);
  if ('tensors' in given) {
    const [a, b] = given.tensors;
    return [
      combined(
        [a, b],
        (x, y) => x - y,
        (x, y) => add([{ ...a, values: x }, map({ ...b, values: y }, affine(-1, 0))]).values,
      ),
    ];
  }
  const { tensor, by, tensorFirst } = given;
  return [
    tensorFirst ? shifted(tensor, by, -1) : shifted(scaled(tensor, { number: -1 }, 1), by, 1),
  ];
};

/**
 * Of two tensors, such as a feature map and its squeeze-and-excite gate: taken to be independent.
 * (A gate follows its map's mean over positions, of which one position knows little.)
 */
export const Mul: Rule = async (c) => {
  const given = await operands(c);
  if (!('tensors' in given)) return [scaled(given.tensor, given.by, 1)];
  return [
    combined(
      given.tensors,
      (x, y) => x * y,
      (x, y) =>
        ChannelValues.of({ signal: multiplySignals(x.signal, y.signal), kept: x.kept }, x.r),
    ),
  ];
};

export const Div: Rule = async (c) => {
  const given = await operands(c);
  if ('tensors' in given) {
    return [
      combined(
        given.tensors,
        (x, y) => x / y,
        () => refuse(c, 'two activations'),
      ),
    ];
  }
  const { tensor, by, tensorFirst } = given;
  if (tensorFirst) return [scaled(tensor, by, -1)];
  if ('perChannel' in by) return refuse(c, 'a constant per channel over an activation');
  const { number } = by;
  return [map(tensor, { apply: (u) => number / u })];
};

/** To a small power, as in the approximation of GELU. */
export const Pow: Rule = async (c) => {
  const exponent = await c.constant(1);
  const power = exponent?.values.length === 1 ? exponent.values[0] : Number.NaN;
  if (!Number.isInteger(power) || power < 1 || power > 4)
    return refuse(c, 'an exponent that is not 1 to 4');
  return [map(c.tensor(0), { apply: (u) => u ** power })];
};

export const Sum: Rule = (c) => {
  let [total] = sameChannels(c, c.tensor(0), c.tensor(0));
  for (let i = 1; i < c.node.input.length; i++) total = add(sameChannels(c, total, c.tensor(i)));
  return [total];
};
