import { string } from '../../../src/graph/build.js';
import { ints, node } from '../../support/protos.js';
import type { GradientCase, InputCase } from '../check-gradient.js';

const index = (
  dims: number[],
  values: number[],
  dtype: 'int32' | 'int64' = 'int64',
): InputCase => ({
  dims,
  values,
  dtype,
});

const gathers: [number[], InputCase, number][] = [
  [[4, 3], index([3], [0, 2, 0]), 0],
  [[4, 3], index([2, 2], [-1, 2, 1, -1]), 0],
  [[4, 3], index([2, 2], [-1, 2, 1, -1], 'int32'), 1],
  [[2, 4, 3], index([3], [0, 3, 3]), -2],
  [[2, 3, 4], index([], [-2]), 2],
  [[5], index([], [1]), 0],
  [[5], index([1], [1]), 0],
  [[3, 2], index([0], []), 0],
];

const gathered: GradientCase[] = gathers.flatMap(([dims, indices, axis]) =>
  [17, 25].map((opset) => ({
    name: `Gather [${dims}] at ${indices.values} [${indices.dims}] of axis ${axis}, opset ${opset}`,
    nodes: [node('Gather', ['x', 'i'], ['y'], { axis })],
    inputs: { x: { dims }, i: indices },
    opset,
  })),
);

/** Indices that are known when the rule runs. */
const constants: GradientCase[] = [[1], [-1], [1, 2, 3], [-2, -1], [2, 1], [1, 1]].flatMap(
  (values) =>
    [0, 1].map((axis) => ({
      name: `Gather at the constant ${values} of axis ${axis}`,
      nodes: [node('Gather', ['x', 'i'], ['y'], { axis })],
      inputs: { x: { dims: [4, 4] } },
      initializers: [ints('i', ...values)],
    })),
);

const scattering = (op: string, reduction: string, attributes: Record<string, number> = {}) => {
  const made = node(op, ['x', 'i', 'u'], ['y'], attributes);
  made.attribute.push(string('reduction', reduction));
  return made;
};

const elements: GradientCase[] = [
  ...[0, 1, -1].map((axis) => ({
    name: `GatherElements of axis ${axis}`,
    nodes: [node('GatherElements', ['x', 'i'], ['y'], { axis })],
    inputs: { x: { dims: [3, 3] }, i: index([2, 3], [0, 2, -1, 2, 2, 0]) },
  })),
  ...[0, -1].map((axis) => ({
    name: `ScatterElements of axis ${axis}`,
    nodes: [scattering('ScatterElements', 'none', { axis })],
    inputs: { x: { dims: [3, 3] }, i: index([2, 3], [0, 2, 1, 2, 1, 0]), u: { dims: [2, 3] } },
  })),
  {
    name: 'ScatterElements that adds',
    nodes: [scattering('ScatterElements', 'add', { axis: 1 })],
    inputs: { x: { dims: [2, 4] }, i: index([2, 3], [0, 0, 1, -1, 2, 3]), u: { dims: [2, 3] } },
    opset: 18,
  },
];

const tuples: GradientCase[] = [
  {
    name: 'GatherND of elements',
    nodes: [node('GatherND', ['x', 'i'], ['y'])],
    inputs: { x: { dims: [2, 3] }, i: index([3, 2], [0, 1, 1, 2, 0, 1]) },
  },
  {
    name: 'GatherND of rows',
    nodes: [node('GatherND', ['x', 'i'], ['y'])],
    inputs: { x: { dims: [3, 2, 2] }, i: index([2, 2, 1], [0, -1, 1, 0]) },
  },
  {
    name: 'GatherND, one axis of batch',
    nodes: [node('GatherND', ['x', 'i'], ['y'], { batch_dims: 1 })],
    inputs: { x: { dims: [2, 3, 2] }, i: index([2, 2, 1], [1, 2, 0, 0]) },
  },
  {
    name: 'GatherND, two axes of batch',
    nodes: [node('GatherND', ['x', 'i'], ['y'], { batch_dims: 2 })],
    inputs: { x: { dims: [2, 2, 3] }, i: index([2, 2, 1], [1, 2, 0, -1]) },
  },
  {
    name: 'ScatterND of rows',
    nodes: [scattering('ScatterND', 'none')],
    inputs: { x: { dims: [3, 2] }, i: index([2, 1], [2, 0]), u: { dims: [2, 2] } },
  },
  {
    name: 'ScatterND that adds',
    nodes: [scattering('ScatterND', 'add')],
    inputs: { x: { dims: [3, 2] }, i: index([3, 2], [2, 0, 0, 1, 2, 0]), u: { dims: [3] } },
    opset: 18,
  },
];

const highest: GradientCase[] = [
  [-1, 1],
  [0, 0],
].flatMap(([axis, largest]) =>
  [17, 24].map((opset) => ({
    name: `TopK of axis ${axis} largest ${largest} opset ${opset}`,
    nodes: [node('TopK', ['x', 'k'], ['y', 'i'], { axis, largest })],
    inputs: { x: { dims: [3, 4], values: [3, 1, 2, 5, 9, 7, 8, 6, 4, 0, 11, 10] } },
    initializers: [ints('k', 2)],
    opset,
  })),
);

const reversals: GradientCase[] = [
  [0, 1],
  [1, 0],
].map(([batch, time]) => ({
  name: `ReverseSequence of axis ${time}`,
  nodes: [node('ReverseSequence', ['x', 'n'], ['y'], { batch_axis: batch, time_axis: time })],
  inputs: { x: { dims: [3, 3, 2] }, n: index([3], [1, 2, 3]) },
}));

export const cases: GradientCase[] = [
  ...gathered,
  ...constants,
  ...elements,
  ...tuples,
  ...highest,
  ...reversals,
];
