import { NoGradientError } from '../../src/autodiff/reverse.js';
import { string } from '../../src/graph/build.js';
import type { AttributeProto, NodeProto } from '../../src/onnx/index.js';
import { floats, ints, node } from '../support/protos.js';
import { checkGradient, type GradientCase, type InputCase } from './check-gradient.js';

const withText = (made: NodeProto, ...attributes: AttributeProto[]): NodeProto => {
  made.attribute.push(...attributes);
  return made;
};

/** A form of an op that has no gradient, with what the error says. */
type Refused = GradientCase & { says: string };

const refused: Refused[] = [
  {
    name: 'Clip whose bound is trained',
    nodes: [node('Clip', ['x', 'low'], ['y'])],
    inputs: { x: { dims: [2] }, low: { dims: [] } },
    says: 'Clip with a bound that is trained',
  },
  {
    name: 'Pad whose value is trained',
    nodes: [node('Pad', ['x', 'pads', 'v'], ['y'])],
    inputs: { x: { dims: [2] }, v: { dims: [] } },
    initializers: [ints('pads', 1, 1)],
    says: 'Pad with a padding value that is trained',
  },
  {
    name: 'Pad by computed pads',
    nodes: [node('Pad', ['x', 'pads'], ['y'])],
    inputs: { x: { dims: [2] }, pads: { dims: [2], values: [1, 1], dtype: 'int64' } },
    says: 'Pad with pads that the model computes',
  },
  {
    name: 'Pad, reflect, by negative numbers',
    nodes: [withText(node('Pad', ['x', 'pads'], ['y']), string('mode', 'reflect'))],
    inputs: { x: { dims: [4] } },
    initializers: [ints('pads', 1, -1)],
    says: 'Pad with mode reflect and negative pads',
  },
  {
    name: 'ReduceMean of computed axes',
    nodes: [node('ReduceMean', ['x', 'axes'], ['y'])],
    inputs: { x: { dims: [2, 2] }, axes: { dims: [1], values: [1], dtype: 'int64' } },
    opset: 18,
    says: 'axes that the model computes',
  },
  {
    name: 'ScatterND that multiplies',
    nodes: [withText(node('ScatterND', ['x', 'i', 'u'], ['y']), string('reduction', 'mul'))],
    inputs: {
      x: { dims: [3] },
      u: { dims: [1] },
      i: { dims: [1, 1], values: [1], dtype: 'int64' },
    },
    says: 'ScatterND with reduction mul',
  },
  {
    name: 'Compress',
    nodes: [node('Compress', ['x', 'c'], ['y'])],
    inputs: { x: { dims: [2] }, c: { dims: [2], values: [1, 0], dtype: 'bool' } },
    says: 'Compress has no gradient here',
  },
];

const form = (
  reason: string,
  made: NodeProto,
  dims: Record<string, number[]>,
  more: Partial<GradientCase> = {},
): Refused => ({
  name: `${made.opType} with ${reason}`,
  says: `${made.opType} with ${reason} has no gradient`,
  nodes: [made],
  inputs: Object.fromEntries(
    Object.entries(dims).map(([name, d]): [string, InputCase] => [name, { dims: d }]),
  ),
  check: 'linear',
  ...more,
});

const contrib = { domain: 'com.microsoft' };
const domains = ['com.microsoft'];
const scales = [floats('scales', [4], Float32Array.of(1, 1, 0.5, 0.5))];
const resize = (attributes: Record<string, number | string>) =>
  node('Resize', ['x', '', 'scales'], ['y'], { mode: 'linear', ...attributes });
const map = { x: [1, 1, 4, 4] };

/** Windows, interpolations, products and normalisations. */
const forms = [
  form(
    'transBatchA',
    node('FusedMatMul', ['a', 'b'], ['y'], { transBatchA: 1 }, contrib),
    { a: [3, 2, 4], b: [2, 4, 3] },
    { domains },
  ),
  form(
    'a vector and a transposed operand',
    node('FusedMatMul', ['a', 'b'], ['y'], { transA: 1 }, contrib),
    { a: [3, 2], b: [3] },
    { domains },
  ),
  form('a diagonal ("ii")', node('Einsum', ['x'], ['y'], { equation: 'ii->i' }), { x: [2, 2] }),
  ...['MaxPool', 'AveragePool'].map((op) =>
    form(
      'ceil_mode and a window behind the image',
      node(op, ['x'], ['y'], { kernel_shape: [2], strides: [2], pads: [1, 1], ceil_mode: 1 }),
      { x: [1, 1, 3] },
    ),
  ),
  form('antialias', resize({ antialias: 1 }), map, { initializers: scales, opset: 18 }),
  form(
    'coordinate_transformation_mode tf_crop_and_resize',
    node('Resize', ['x', 'roi', 'scales'], ['y'], {
      coordinate_transformation_mode: 'tf_crop_and_resize',
    }),
    map,
    {
      initializers: [...scales, floats('roi', [8], Float32Array.of(0, 0, 0, 0, 1, 1, 1, 1))],
    },
  ),
  form(
    'keep_aspect_ratio_policy not_larger',
    node('Resize', ['x', '', '', 'sizes'], ['y'], { keep_aspect_ratio_policy: 'not_larger' }),
    map,
    { initializers: [ints('sizes', 1, 1, 2, 2)], opset: 18 },
  ),
  form(
    'training_mode 1',
    node('BatchNormalization', ['x', 's', 'b', 'm', 'v'], ['y', 'n', 'w'], { training_mode: 1 }),
    {
      x: [2, 2, 3],
      s: [2],
      b: [2],
      m: [2],
      v: [2],
    },
  ),
  form(
    'use of its Mean or InvStdDev',
    node('LayerNormalization', ['x', 's'], ['y', 'm']),
    { x: [2, 3], s: [3] },
    { outputs: ['y', 'm'] },
  ),
];

describe('a form of an op without gradient is refused by name', () => {
  test.each([...refused, ...forms].map((c) => [c.name, c] as const))('%s', async (_, c) => {
    const error = await checkGradient(c).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(NoGradientError);
    expect(error).toMatchObject({ detail: { got: expect.stringContaining(c.says) } });
  });
});
