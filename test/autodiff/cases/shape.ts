import { string } from '../../../src/graph/build.js';
import { ints, node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

/** Opsets between which the ops of this family changed their form. */
const opsets = [17, 18, 21, 25];

interface Move {
  dims: number[];
  /** The constant inputs after x, by name. */
  constants?: Record<string, number[]>;
  attributes?: Record<string, number | number[]>;
  opset?: number;
}

const move = (op: string, { dims, constants = {}, attributes, opset = 17 }: Move): GradientCase => {
  const form = JSON.stringify({ ...constants, ...attributes });
  return {
    name: `${op} [${dims}] ${form} opset ${opset}`,
    nodes: [node(op, ['x', ...Object.keys(constants)], ['y'], attributes)],
    inputs: { x: { dims } },
    initializers: Object.entries(constants).map(([name, values]) => ints(name, ...values)),
    opset,
  };
};

const reshaped: GradientCase[] = [
  move('Reshape', { dims: [2, 3], constants: { shape: [3, -1] } }),
  move('Reshape', { dims: [1], constants: { shape: [] }, opset: 21 }),
  move('Reshape', { dims: [], constants: { shape: [1, 1] }, opset: 25 }),
  move('Reshape', { dims: [0, 3], constants: { shape: [3, 0] }, attributes: { allowzero: 1 } }),
  move('Flatten', { dims: [2, 3, 2] }),
  move('Flatten', { dims: [2, 3, 2], attributes: { axis: 0 } }),
  move('Flatten', { dims: [2, 3, 2], attributes: { axis: -1 }, opset: 25 }),
  move('Squeeze', { dims: [1, 2, 1] }),
  move('Squeeze', { dims: [1, 2, 1], constants: { axes: [-1] }, opset: 25 }),
  move('Unsqueeze', { dims: [2, 3], constants: { axes: [0, -1] } }),
  move('Unsqueeze', { dims: [], constants: { axes: [0] }, opset: 25 }),
];

const transposed: GradientCase[] = [
  move('Transpose', { dims: [2, 3, 4] }),
  move('Transpose', { dims: [2, 3, 4], attributes: { perm: [1, 2, 0] }, opset: 25 }),
  move('Transpose', { dims: [2, 3, 4], attributes: { perm: [0, 1, 2] } }),
  move('Transpose', { dims: [3] }),
];

const concatenated: GradientCase[] = [17, 25].flatMap((opset): GradientCase[] => [
  {
    name: `Concat of three, opset ${opset}`,
    nodes: [node('Concat', ['a', 'b', 'c'], ['y'], { axis: -1 })],
    inputs: { a: { dims: [2, 1] }, b: { dims: [2, 0] }, c: { dims: [2, 3] } },
    opset,
  },
  {
    name: `Concat with one that is trained, opset ${opset}`,
    nodes: [node('Concat', ['a', 'b', 'c'], ['y'], { axis: 0 })],
    inputs: {
      a: { dims: [1, 2], constant: true },
      b: { dims: [2, 2] },
      c: { dims: [1, 2], constant: true },
    },
    opset,
  },
  {
    name: `Concat of a value and itself, opset ${opset}`,
    nodes: [node('Concat', ['a', 'a'], ['y'], { axis: 0 })],
    inputs: { a: { dims: [2, 2] } },
    opset,
  },
]);

const split: GradientCase[] = [
  {
    name: 'Split by sizes',
    nodes: [node('Split', ['x', 'sizes'], ['a', 'b', 'c'], { axis: -1 })],
    inputs: { x: { dims: [2, 6] } },
    initializers: [ints('sizes', 1, 2, 3)],
    outputs: ['a', 'b', 'c'],
  },
  {
    name: 'Split, with a part that is not used',
    nodes: [node('Split', ['x'], ['a', 'b'], { axis: 0 })],
    inputs: { x: { dims: [4, 2] } },
    outputs: ['b'],
  },
  {
    name: 'Split by num_outputs',
    nodes: [node('Split', ['x'], ['a', 'b'], { axis: 1, num_outputs: 2 })],
    inputs: { x: { dims: [2, 5] } },
    outputs: ['a', 'b'],
    opset: 18,
  },
];

const repeated: GradientCase[] = [
  move('Expand', { dims: [3, 1], constants: { shape: [2, 1, 4] } }),
  move('Expand', { dims: [], constants: { shape: [2, 2] }, opset: 25 }),
  move('Expand', { dims: [2, 3], constants: { shape: [1] } }),
  move('Tile', { dims: [2, 3], constants: { repeats: [2, 3] } }),
  move('Tile', { dims: [2, 3, 1], constants: { repeats: [1, 2, 4] }, opset: 25 }),
  move('Tile', { dims: [3], constants: { repeats: [1] } }),
  move('Tile', { dims: [0, 2], constants: { repeats: [2, 2] } }),
];

const end = Number.MAX_SAFE_INTEGER;
const slices: [number[], number[], number[], number[]?, number[]?][] = [
  [[5], [1], [4]],
  [[5], [-3], [end]],
  [[5], [0], [-1], [0]],
  [
    [4, 5],
    [1, 0],
    [3, 5],
  ],
  [[4, 5], [2], [end], [-1]],
  [
    [4, 5],
    [0, 1],
    [end, end],
    [0, 1],
    [2, 3],
  ],
  [[7], [1], [end], [0], [2]],
  [[7], [0], [7], [0], [3]],
  [[7], [0], [2], [0], [5]],
  [[5], [-1], [-end], [0], [-1]],
  [[7], [5], [0], [-1], [-2]],
  [
    [3, 6],
    [2, 10],
    [0, -end],
    [0, 1],
    [-1, -4],
  ],
  [
    [4, 5],
    [3, 1],
    [0, 5],
    [0, 1],
    [-2, 2],
  ],
  [[3, 2], [2], [1], [0]],
  [[3, 2], [0], [3], [0]],
];
const sliced: GradientCase[] = slices.map(([dims, starts, ends, axes, steps]) =>
  move('Slice', {
    dims,
    constants: { starts, ends, ...(axes && { axes }), ...(steps && { steps }) },
  }),
);

const padded: GradientCase[] = [
  ...opsets.map((opset) => move('Pad', { dims: [2, 3], constants: { pads: [1, 0, 0, 2] }, opset })),
  move('Pad', { dims: [3, 4], constants: { pads: [-1, 0, 1, -2] } }),
  move('Pad', { dims: [3, 4], constants: { pads: [-1, -1, 0, -1] } }),
  move('Pad', { dims: [3, 4], constants: { pads: [0, 0, 0, 0] } }),
  {
    ...move('Pad', { dims: [2, 3], constants: { pads: [1, 2] }, opset: 18 }),
    name: 'Pad of some axes',
    nodes: [node('Pad', ['x', 'pads', '', 'axes'], ['y'])],
    initializers: [ints('pads', 1, 2), ints('axes', -1)],
  },
  ...['reflect', 'edge', 'wrap'].flatMap((mode) =>
    [
      [0, 2, 0, 0, 1, 3],
      [1, 0, 1, 1, 2, 0],
      [0, 0, 2, 0, 0, 0],
    ].map((pads): GradientCase => {
      const made = move('Pad', { dims: [2, 3, 4], constants: { pads }, opset: 19 });
      made.nodes[0].attribute.push(string('mode', mode));
      return { ...made, name: `Pad ${mode} ${pads}` };
    }),
  ),
];

const blocks: GradientCase[] = [
  ...['DCR', 'CRD'].map((mode): GradientCase => {
    const made = move('DepthToSpace', { dims: [1, 8, 2, 3], attributes: { blocksize: 2 } });
    made.nodes[0].attribute.push(string('mode', mode));
    return { ...made, name: `DepthToSpace ${mode}` };
  }),
  move('SpaceToDepth', { dims: [2, 2, 4, 6], attributes: { blocksize: 2 } }),
];

const triangles: GradientCase[] = [
  move('Trilu', { dims: [2, 3, 4] }),
  move('Trilu', { dims: [3, 3], attributes: { upper: 0 } }),
  {
    ...move('Trilu', { dims: [3, 4], attributes: { upper: 0 } }),
    name: 'Trilu above the diagonal',
    nodes: [node('Trilu', ['x', 'k'], ['y'], { upper: 0 })],
    inputs: { x: { dims: [3, 4] }, k: { dims: [], values: [1], dtype: 'int64' } },
  },
];

export const cases: GradientCase[] = [
  ...reshaped,
  ...transposed,
  ...concatenated,
  ...split,
  ...repeated,
  ...sliced,
  ...padded,
  ...blocks,
  ...triangles,
];
