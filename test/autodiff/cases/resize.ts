import { float } from '../../../src/graph/build.js';
import type { TensorProto } from '../../../src/onnx/index.js';
import { floats, ints, node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

type Attributes = Record<string, number | string | number[]>;

/** Every Resize is linear: the interpolation that the rule builds is checked against the op itself. */
const resize = (
  title: string,
  dims: number[],
  to: { scales?: number[]; sizes?: number[] },
  attributes: Attributes = {},
  opset = 17,
): GradientCase => {
  const { cubic_coeff_a: a, ...rest } = attributes;
  const made = node(
    'Resize',
    ['x', '', to.scales ? 'scales' : '', ...(to.sizes ? ['sizes'] : [])],
    ['y'],
    rest,
  );
  if (typeof a === 'number') made.attribute.push(float('cubic_coeff_a', a));
  const target: TensorProto = to.scales
    ? floats('scales', [to.scales.length], Float32Array.from(to.scales))
    : ints('sizes', ...(to.sizes ?? []));
  return {
    name: `Resize ${title}`,
    nodes: [made],
    inputs: { x: { dims } },
    initializers: [target],
    check: 'linear',
    opset,
  };
};

const coordinates = ['half_pixel', 'pytorch_half_pixel', 'align_corners', 'asymmetric'];
const rounding = ['round_prefer_floor', 'round_prefer_ceil', 'floor', 'ceil'];

export const cases: GradientCase[] = [
  // Repetition.
  ...['half_pixel', 'asymmetric'].map((mode) =>
    resize(
      `nearest x2, ${mode}`,
      [2, 2, 3, 2],
      { scales: [1, 1, 2, 2] },
      {
        coordinate_transformation_mode: mode,
        nearest_mode: mode === 'asymmetric' ? 'floor' : 'round_prefer_floor',
      },
    ),
  ),
  resize('nearest x3 x1 by sizes', [1, 2, 2, 3], { sizes: [1, 2, 6, 3] }),
  resize('nearest x2, 1-D', [2, 2, 3], { scales: [1, 1, 2] }),
  resize('nearest x2, 3-D', [1, 2, 2, 1, 2], { scales: [1, 1, 2, 2, 3] }),
  resize('nearest x2 of every axis', [2, 3], { scales: [2, 2] }),
  resize('nearest x2 of channels', [1, 2, 2, 2], { scales: [1, 2, 1, 2] }),
  resize('nothing', [1, 2, 2, 2], { scales: [1, 1, 1, 1] }),
  // Anything else.
  ...coordinates.flatMap((mode) =>
    rounding.map((nearest_mode) =>
      resize(
        `nearest ${mode} ${nearest_mode}`,
        [1, 1, 4, 5],
        { scales: [1, 1, 1.6, 0.7] },
        {
          coordinate_transformation_mode: mode,
          nearest_mode,
        },
      ),
    ),
  ),
  ...['linear', 'cubic'].flatMap((mode) =>
    coordinates.flatMap((coordinate_transformation_mode) => [
      resize(
        `${mode} ${coordinate_transformation_mode} by scales`,
        [1, 2, 4, 5],
        { scales: [1, 1, 1.6, 0.7] },
        {
          mode,
          coordinate_transformation_mode,
        },
      ),
      resize(
        `${mode} ${coordinate_transformation_mode} by sizes`,
        [2, 1, 4, 5],
        { sizes: [2, 1, 3, 9] },
        {
          mode,
          coordinate_transformation_mode,
        },
      ),
    ]),
  ),
  resize(
    'linear to one cell',
    [1, 1, 3, 4],
    { sizes: [1, 1, 1, 2] },
    {
      mode: 'linear',
      coordinate_transformation_mode: 'align_corners',
    },
  ),
  resize('linear, 3-D', [1, 1, 2, 3, 2], { scales: [1, 1, 2, 1.5, 2] }, { mode: 'linear' }),
  resize('linear of a matrix', [3, 4], { scales: [2, 1.5] }, { mode: 'linear' }),
  resize(
    'cubic, exclude_outside',
    [1, 1, 4, 5],
    { scales: [1, 1, 2, 0.8] },
    {
      mode: 'cubic',
      exclude_outside: 1,
    },
  ),
  resize(
    'cubic, a = -0.5',
    [1, 1, 4, 4],
    { scales: [1, 1, 2, 2] },
    {
      mode: 'cubic',
      cubic_coeff_a: -0.5,
    },
  ),
  // Forms of newer opsets.
  ...[18, 19, 22].map((opset) =>
    resize(
      `linear of opset ${opset}, axes`,
      [1, 2, 4, 5],
      { scales: [2, 1.6] },
      { mode: 'linear', axes: [-2, 3] },
      opset,
    ),
  ),
  resize(
    'linear half_pixel_symmetric',
    [1, 1, 4, 5],
    { scales: [1, 1, 1.6, 0.7] },
    {
      mode: 'linear',
      coordinate_transformation_mode: 'half_pixel_symmetric',
    },
    19,
  ),
];
