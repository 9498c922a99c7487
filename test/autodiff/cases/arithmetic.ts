import { node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

const shapes: [number[], number[]][] = [
  [
    [2, 3],
    [2, 3],
  ],
  [[2, 3], [3]],
  [[], [2, 2]],
  [
    [2, 1, 3],
    [4, 1],
  ],
  [
    [1, 1],
    [3, 2],
  ],
];

export const cases: GradientCase[] = ['Add', 'Sub', 'Mul', 'Div'].flatMap((op) => [
  ...shapes.map(([a, b]) => ({
    name: `${op} [${a}] [${b}]`,
    nodes: [node(op, ['a', 'b'], ['y'])],
    inputs: { a: { dims: a }, b: { dims: b, range: [0.5, 2] as [number, number] } },
  })),
  {
    name: `${op} of a value and itself`,
    nodes: [node(op, ['a', 'a'], ['y'])],
    inputs: { a: { dims: [3], range: [0.5, 2] as [number, number] } },
    ...(op === 'Div' || op === 'Sub' ? { tolerance: 1e-6 } : {}),
  },
]);
