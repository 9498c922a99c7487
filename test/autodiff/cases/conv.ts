import { node } from '../../support/protos.js';
import type { GradientCase, InputCase } from '../check-gradient.js';

type Attributes = Record<string, number | string | number[]>;

/** Linear in each of its inputs, and without a float64 kernel. */
const conv = (
  op: 'Conv' | 'ConvTranspose',
  title: string,
  x: number[],
  w: number[],
  attributes: Attributes = {},
  more: { bias?: number; constant?: 'x' | 'w'; opset?: number } = {},
): GradientCase => {
  const inputs: Record<string, InputCase> = { x: { dims: x }, w: { dims: w } };
  if (more.bias) inputs.b = { dims: [more.bias] };
  if (more.constant) inputs[more.constant].constant = true;
  return {
    name: `${op} ${title}`,
    nodes: [node(op, Object.keys(inputs), ['y'], attributes)],
    inputs,
    opset: more.opset,
    check: 'linear',
  };
};

export const cases: GradientCase[] = [
  conv('Conv', '2-D with bias', [2, 3, 5, 4], [4, 3, 3, 2], {}, { bias: 4 }),
  conv('Conv', '1-D', [2, 2, 7], [3, 2, 3], { pads: [1, 1] }),
  conv('Conv', '3-D', [1, 2, 4, 3, 4], [2, 2, 2, 2, 3], { pads: [1, 0, 1, 0, 1, 1] }, { bias: 2 }),
  conv('Conv', 'stride that leaves cells over', [1, 2, 8, 7], [2, 2, 3, 3], { strides: [3, 2] }),
  conv('Conv', 'stride wider than the kernel', [1, 2, 7, 7], [2, 2, 1, 2], { strides: [2, 3] }),
  conv('Conv', 'asymmetric pads', [1, 2, 5, 6], [2, 2, 3, 3], {
    pads: [0, 2, 1, 1],
    strides: [2, 2],
  }),
  conv('Conv', 'dilations', [1, 2, 8, 7], [2, 2, 3, 2], {
    dilations: [2, 3],
    strides: [2, 1],
    pads: [2, 1, 2, 1],
  }),
  conv('Conv', 'groups', [2, 4, 5, 5], [6, 2, 3, 3], { group: 2, pads: [1, 1, 1, 1] }, { bias: 6 }),
  conv('Conv', 'depthwise, two filters a channel', [2, 3, 6, 5], [6, 1, 3, 3], {
    group: 3,
    strides: [2, 2],
    pads: [1, 1, 1, 1],
  }),
  ...['SAME_UPPER', 'SAME_LOWER', 'VALID'].map((auto_pad) =>
    conv('Conv', `auto_pad ${auto_pad}`, [1, 2, 6, 7], [2, 2, 2, 3], {
      auto_pad,
      strides: [2, 3],
    }),
  ),
  conv('Conv', '1x1', [2, 3, 4, 4], [2, 3, 1, 1], {}, { bias: 2 }),
  conv('Conv', '1x1 with stride', [2, 3, 5, 4], [2, 3, 1, 1], { strides: [2, 2] }),
  conv('Conv', 'of opset 22', [1, 2, 4, 4], [2, 2, 3, 3], { pads: [1, 1, 1, 1] }, { opset: 22 }),
  // Large enough for each form of the gradients.
  conv('Conv', 'dW summed over samples', [2, 2, 18, 18], [2, 2, 2, 2], {}, { constant: 'x' }),
  conv(
    'Conv',
    'dW tap by tap',
    [2, 16, 24, 24],
    [2, 16, 2, 3],
    { pads: [1, 1, 0, 1] },
    { constant: 'x' },
  ),
  conv(
    'Conv',
    'dX by a flipped kernel',
    [1, 16, 131],
    [2, 16, 2],
    { pads: [0, 1] },
    { constant: 'w' },
  ),
  conv(
    'Conv',
    'dX by a flipped kernel in groups',
    [1, 16, 66],
    [4, 8, 2],
    { group: 2 },
    { constant: 'w' },
  ),
  conv(
    'Conv',
    'dX by a flipped depthwise kernel',
    [1, 16, 6, 7],
    [16, 1, 2, 3],
    { group: 16, pads: [1, 1, 1, 2] },
    { constant: 'w' },
  ),
  conv(
    'Conv',
    'dX by a transposed 1x1 kernel',
    [1, 16, 9, 9],
    [4, 16, 1, 1],
    {},
    { constant: 'w' },
  ),

  conv('ConvTranspose', '2-D with bias', [2, 3, 4, 3], [3, 2, 3, 2], {}, { bias: 2 }),
  conv('ConvTranspose', '1-D', [2, 2, 5], [2, 3, 3], { strides: [2] }),
  conv('ConvTranspose', '3-D', [1, 2, 2, 3, 2], [2, 2, 2, 2, 3], { strides: [1, 2, 1] }),
  conv('ConvTranspose', 'pads and output_padding', [1, 2, 4, 4], [2, 3, 3, 3], {
    strides: [2, 3],
    pads: [1, 0, 0, 1],
    output_padding: [1, 2],
  }),
  conv(
    'ConvTranspose',
    'groups',
    [2, 4, 3, 4],
    [4, 3, 3, 3],
    { group: 2, strides: [2, 1] },
    { bias: 6 },
  ),
  ...['NOTSET', 'SAME_UPPER', 'SAME_LOWER'].flatMap((auto_pad) => [
    conv('ConvTranspose', `output_shape, auto_pad ${auto_pad}`, [1, 2, 3, 3], [2, 2, 3, 3], {
      auto_pad,
      strides: [2, 2],
      output_shape: [6, 5],
    }),
    ...(auto_pad === 'NOTSET'
      ? []
      : [
          conv('ConvTranspose', `auto_pad ${auto_pad}`, [1, 2, 3, 3], [2, 2, 3, 4], {
            auto_pad,
            strides: [2, 1],
          }),
        ]),
  ]),
  conv('ConvTranspose', 'auto_pad VALID', [1, 2, 3, 3], [2, 2, 3, 2], { auto_pad: 'VALID' }),
];
