import { floats, ints, node } from '../../support/protos.js';
import type { GradientCase, InputCase } from '../check-gradient.js';
import { erf, slopes, unary } from '../reference.js';

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
  [
    [0, 3],
    [1, 3],
  ],
];

const positive: [number, number] = [0.5, 2];

const binary: GradientCase[] = ['Add', 'Sub', 'Mul', 'Div', 'Max', 'Min', 'Sum', 'Pow'].flatMap(
  (op) => [
    ...shapes.map(([a, b]) => ({
      name: `${op} [${a}] [${b}]`,
      nodes: [node(op, ['a', 'b'], ['y'])],
      inputs: { a: { dims: a, range: positive }, b: { dims: b, range: positive } },
    })),
    {
      name: `${op} of a value and itself`,
      nodes: [node(op, ['a', 'a'], ['y'])],
      inputs: { a: { dims: [3], range: positive } },
      ...(op === 'Div' || op === 'Sub' ? { tolerance: 1e-6 } : {}),
    },
  ],
);

const variadic: GradientCase[] = ['Sum', 'Max', 'Min'].flatMap((op): GradientCase[] => [
  ...[17, 25].map((opset) => ({
    name: `${op} of three, opset ${opset}`,
    nodes: [node(op, ['a', 'b', 'c'], ['y'])],
    inputs: { a: { dims: [2, 3] }, b: { dims: [3] }, c: { dims: [2, 1] } },
    opset,
  })),
  { name: `${op} of one`, nodes: [node(op, ['a'], ['y'])], inputs: { a: { dims: [2] } } },
]);

/** Inputs that are equal share the gradient. */
const ties: GradientCase[] = ['Max', 'Min'].map((op) => ({
  name: `${op} with ties`,
  nodes: [node(op, ['a', 'b', 'c'], ['y'])],
  inputs: {
    a: { dims: [4], values: [1, 1, 1, 2] },
    b: { dims: [4], values: [1, 1, 2, 1] },
    c: { dims: [1], values: [1] },
  },
  check: (_, { y: [p, q, r, s] }) =>
    op === 'Max'
      ? {
          a: Float64Array.of(p / 3, q / 3, 0, s),
          b: Float64Array.of(p / 3, q / 3, r, 0),
          c: Float64Array.of((p + q) / 3),
        }
      : {
          a: Float64Array.of(p / 3, q / 3, r / 2, 0),
          b: Float64Array.of(p / 3, q / 3, 0, s / 2),
          c: Float64Array.of((p + q) / 3 + (r + s) / 2),
        },
}));

const powers: GradientCase[] = [
  ...[2, 3, 1, 0, 0.5, -1, 2.5].flatMap((exponent) =>
    [[], [1], [2, 1]].map((dims) => ({
      name: `Pow to the constant ${exponent} [${dims}]`,
      nodes: [node('Pow', ['x', 'e'], ['y'])],
      inputs: { x: { dims: [3], range: positive } },
      initializers: [floats('e', dims, new Float32Array(dims[0] === 2 ? 2 : 1).fill(exponent))],
    })),
  ),
  {
    name: 'Pow of negative numbers and zero to integers',
    nodes: [node('Pow', ['x', 'e'], ['y'])],
    inputs: { x: { dims: [4], values: [-1.5, -0.5, 0, 0] } },
    initializers: [ints('e', 2, 3, 0, 2)],
  },
  {
    name: 'Pow of zero, by the exponent as well',
    nodes: [node('Pow', ['x', 'e'], ['y'])],
    inputs: { x: { dims: [3], values: [0, 0, 1.5] }, e: { dims: [3], values: [2, 4, -1] } },
  },
  {
    name: 'Pow to an integer that is fed',
    nodes: [node('Pow', ['x', 'e'], ['y'])],
    inputs: { x: { dims: [2, 2] }, e: { dims: [2], values: [0, 3], dtype: 'int64' } },
  },
];

const inDouble: GradientCase[] = [
  unary('Neg', { dims: [] }),
  unary('Abs', { dims: [4], values: [-2, -0.5, 0.5, 3] }),
  unary('Sqrt', { dims: [3], range: positive }),
  unary('Reciprocal', { dims: [3], range: positive }),
  unary('Exp', { dims: [2, 2] }),
  unary('Log', { dims: [3], range: positive }),
  unary('Sin', { dims: [3] }),
  unary('Cos', { dims: [3] }),
  unary('Identity', { dims: [2] }),
  unary('Identity', { dims: [2] }, { opset: 25 }),
];

/** y = x floor(x), whose second factor has no slope. */
const steps: GradientCase[] = ['Floor', 'Ceil', 'Round', 'Sign'].map((op) => ({
  name: `${op} as a factor`,
  nodes: [node(op, ['x'], ['step']), node('Mul', ['x', 'step'], ['y'])],
  inputs: { x: { dims: [4], values: [-1.3, -0.2, 0.3, 1.7] } },
}));

const plain: [string, (x: number) => number, [number, number]?][] = [
  ['Erf', erf, [-2, 2]],
  ['Tan', Math.tan],
  ['Sinh', Math.sinh],
  ['Cosh', Math.cosh],
  ['Asin', Math.asin, [-0.9, 0.9]],
  ['Acos', Math.acos, [-0.9, 0.9]],
  ['Atan', Math.atan, [-3, 3]],
  ['Asinh', Math.asinh, [-3, 3]],
  ['Acosh', Math.acosh, [1.1, 3]],
  ['Atanh', Math.atanh, [-0.9, 0.9]],
];

const inFloat: GradientCase[] = plain.map(([op, f, range]) =>
  unary(op, { dims: [2, 5], range }, { check: slopes(f) }),
);

const modulo: GradientCase[] = [
  {
    name: 'Mod',
    nodes: [node('Mod', ['a', 'b'], ['y'], { fmod: 1 })],
    inputs: {
      a: { dims: [4], values: [5.3, -5.3, 0.4, 7.9] },
      b: { dims: [2, 1], values: [2, -1.7] },
    },
  },
];

const mean: GradientCase[] = [
  {
    name: 'Mean of three',
    nodes: [node('Mean', ['a', 'b', 'c'], ['y'])],
    inputs: { a: { dims: [2, 3] }, b: { dims: [3] }, c: { dims: [2, 1] } },
    check: 'linear',
  },
];

const condition: InputCase = { dims: [2, 1], values: [1, 0], dtype: 'bool' };
const selection: GradientCase[] = [
  [[2, 3], [3]],
  [[], [2, 3]],
  [
    [1, 3],
    [4, 1, 1],
  ],
].map(([a, b]) => ({
  name: `Where [${a}] [${b}]`,
  nodes: [node('Where', ['c', 'a', 'b'], ['y'])],
  inputs: { c: condition, a: { dims: a }, b: { dims: b } },
}));

const sums: GradientCase[] = [0, 1].flatMap((exclusive) =>
  [0, 1].map((reverse) => ({
    name: `CumSum exclusive ${exclusive} reverse ${reverse}`,
    nodes: [node('CumSum', ['x', 'axis'], ['y'], { exclusive, reverse })],
    inputs: { x: { dims: [2, 3, 2] } },
    initializers: [ints('axis', exclusive ? -2 : 0)],
  })),
);

const unchanged: GradientCase[] = [
  {
    name: 'Cast from float32 to float64 and back',
    nodes: [
      node('Cast', ['x'], ['d'], { to: 11 }),
      node('Mul', ['d', 'd'], ['dd']),
      node('Cast', ['dd'], ['y'], { to: 1 }),
    ],
    inputs: { x: { dims: [3] } },
    check: slopes((x) => x * x),
  },
  ...[17, 22].map((opset) => ({
    name: `Dropout, opset ${opset}`,
    nodes: [node('Dropout', ['x', 'ratio'], ['y'])],
    inputs: { x: { dims: [3] } },
    initializers: [floats('ratio', [], Float32Array.of(0.5))],
    opset,
  })),
];

export const cases: GradientCase[] = [
  ...binary,
  ...variadic,
  ...ties,
  ...powers,
  ...inDouble,
  ...steps,
  ...inFloat,
  ...modulo,
  ...mean,
  ...selection,
  ...sums,
  ...unchanged,
];
