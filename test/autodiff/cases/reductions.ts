import { ints, node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

const ops = [
  'ReduceSum',
  'ReduceMean',
  'ReduceMax',
  'ReduceMin',
  'ReduceL1',
  'ReduceL2',
  'ReduceSumSquare',
  'ReduceLogSum',
  'ReduceLogSumExp',
  'ReduceProd',
];

interface Form {
  op: string;
  dims: number[];
  axes?: number[];
  keepdims?: number;
  noop?: number;
  opset: number;
  values?: number[];
}

/** A reduction whose axes are an attribute, or an input where the opset has them so. */
function reduction({ op, dims, axes, keepdims, noop, opset, values }: Form): GradientCase {
  const asInput = op === 'ReduceSum' || opset >= 18;
  const range: [number, number] = [0.5, 2];
  return {
    name: `${op} [${dims}] axes ${axes ?? 'none'} keepdims ${keepdims ?? 'default'}${noop ? ' noop' : ''} opset ${opset}`,
    nodes: [
      node(op, ['x', ...(axes && asInput ? ['axes'] : [])], ['y'], {
        ...(axes && !asInput && { axes }),
        ...(keepdims !== undefined && { keepdims }),
        ...(noop && { noop_with_empty_axes: noop }),
      }),
    ],
    inputs: { x: { dims, range, values } },
    initializers: axes && asInput ? [ints('axes', ...axes)] : [],
    opset,
  };
}

const forms: Omit<Form, 'op'>[] = [
  { dims: [2, 3, 4], axes: [1], keepdims: 0, opset: 17 },
  { dims: [2, 3, 4], axes: [-1, 0], keepdims: 1, opset: 17 },
  { dims: [2, 3, 4], axes: [-1, 0], keepdims: 0, opset: 18 },
  { dims: [2, 3, 4], axes: [1], opset: 25 },
  { dims: [2, 3], opset: 17 },
  { dims: [2, 3], keepdims: 0, opset: 18 },
  { dims: [4], axes: [0], keepdims: 0, opset: 17 },
  { dims: [2, 1, 2], axes: [1], keepdims: 0, opset: 18 },
  { dims: [], keepdims: 0, opset: 17 },
];

const noop: GradientCase[] = ops.map((op) => reduction({ op, dims: [2, 2], noop: 1, opset: 18 }));

const ties: GradientCase[] = ['ReduceMax', 'ReduceMin'].map((op) => ({
  name: `${op} with ties`,
  nodes: [node(op, ['x'], ['y'], { axes: [1], keepdims: 0 })],
  inputs: { x: { dims: [3, 3], values: [1, 1, 1, 2, 1, 2, 1, 2, 1] } },
  check: (_, { y: [a, b, c] }) => ({
    x: Float64Array.from(
      op === 'ReduceMax'
        ? [a / 3, a / 3, a / 3, b / 2, 0, b / 2, 0, c, 0]
        : [a / 3, a / 3, a / 3, 0, b, 0, c / 2, 0, c / 2],
    ),
  }),
}));

const zeros: GradientCase[] = [
  {
    ...reduction({
      op: 'ReduceProd',
      dims: [3, 3],
      axes: [1],
      opset: 17,
      values: [0, 2, 3, 0, 0, 5, -1, 2, 3],
    }),
    name: 'ReduceProd of zeros',
  },
  {
    name: 'ReduceL2 of zeros',
    nodes: [node('ReduceL2', ['x'], ['y'], { axes: [1] })],
    inputs: { x: { dims: [2, 2], values: [0, 0, 3, -4] } },
    check: (_, { y }) => ({ x: Float64Array.of(0, 0, 0.6 * y[1], -0.8 * y[1]) }),
  },
  {
    ...reduction({ op: 'ReduceL1', dims: [4], opset: 17, values: [-2, -0.5, 0.5, 1] }),
    name: 'ReduceL1 of negative numbers',
  },
];

export const cases: GradientCase[] = [
  ...ops.flatMap((op) => forms.map((form) => reduction({ op, ...form }))),
  ...noop,
  ...ties,
  ...zeros,
];
