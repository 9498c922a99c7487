import { node } from '../../support/protos.js';
import type { GradientCase, InputCase, Reference } from '../check-gradient.js';

type Attributes = Record<string, number | string | number[]>;

const maxPool = (
  title: string,
  dims: number[],
  attributes: Attributes,
  more = {},
): GradientCase => ({
  name: `MaxPool ${title}`,
  nodes: [node('MaxPool', ['x'], ['y'], attributes)],
  inputs: { x: { dims } },
  ...more,
});

const average = (
  title: string,
  dims: number[],
  attributes: Attributes,
  opset?: number,
): GradientCase => ({
  name: `AveragePool ${title}`,
  nodes: [node('AveragePool', ['x'], ['y'], attributes)],
  inputs: { x: { dims } },
  check: 'linear',
  opset,
});

/** Of 2-D maxima over windows of 2 x 2, stride 1, on one 3 x 3 map: the first of equal cells takes all. */
const firstOfTies: Reference = ({ x }, seeds) => {
  const dx = new Float64Array(9);
  for (let place = 0; place < 4; place++) {
    const corner = (place >> 1) * 3 + (place & 1);
    const cells = [corner, corner + 1, corner + 3, corner + 4];
    const max = Math.max(...cells.map((cell) => x[cell]));
    dx[cells.find((cell) => x[cell] === max) ?? 0] += seeds.y[place];
  }
  return { x: dx };
};

/** Ties of a global maximum share evenly. */
const globalMax: Reference = ({ x }, seeds) => {
  const dx = new Float64Array(8);
  for (const map of [0, 1]) {
    const cells = x.subarray(4 * map, 4 * map + 4);
    const max = Math.max(...cells);
    const count = cells.filter((v) => v === max).length;
    for (let i = 0; i < 4; i++) if (cells[i] === max) dx[4 * map + i] = seeds.y[map] / count;
  }
  return { x: dx };
};

const indices: InputCase = { dims: [1, 1, 2, 2], values: [5, 3, 8, 15], dtype: 'int64' };

const averages = [17, 19, 22].flatMap((opset) =>
  [0, 1].flatMap((count_include_pad) => {
    const of = (title: string, dims: number[], attributes: Attributes) =>
      average(
        `${title}, count_include_pad ${count_include_pad}, opset ${opset}`,
        dims,
        { ...attributes, count_include_pad },
        opset,
      );
    return [
      of('3x3, stride 2, pads', [2, 2, 7, 6], {
        kernel_shape: [3, 3],
        strides: [2, 2],
        pads: [1, 1, 1, 1],
      }),
      of('ceil_mode', [1, 2, 6, 7], { kernel_shape: [3, 2], strides: [2, 3], ceil_mode: 1 }),
      of('ceil_mode and pads', [1, 2, 6, 8], {
        kernel_shape: [3, 3],
        strides: [2, 3],
        pads: [1, 0, 0, 1],
        ceil_mode: 1,
      }),
      of('SAME_UPPER', [1, 2, 5, 6], {
        kernel_shape: [2, 3],
        strides: [2, 2],
        auto_pad: 'SAME_UPPER',
      }),
      of('1-D', [2, 2, 7], { kernel_shape: [3], pads: [1, 0] }),
      // As many cells as the windows have, but the padding shifts them.
      of('tiles behind padding', [1, 2, 3], { kernel_shape: [3], strides: [3], pads: [1, 0] }),
      of('3-D', [1, 2, 3, 4, 3], { kernel_shape: [2, 2, 3], pads: [0, 1, 1, 0, 0, 1] }),
      ...(opset < 19
        ? []
        : [
            of('dilations', [1, 2, 7, 6], {
              kernel_shape: [2, 3],
              dilations: [3, 2],
              pads: [1, 1, 0, 1],
            }),
          ]),
    ];
  }),
);

export const cases: GradientCase[] = [
  maxPool('2x2, stride 2', [2, 3, 4, 6], { kernel_shape: [2, 2], strides: [2, 2] }),
  maxPool('2x2, stride 2, cells left over', [1, 2, 5, 7], {
    kernel_shape: [2, 2],
    strides: [2, 2],
  }),
  maxPool('3x3, stride 2, pads', [2, 2, 7, 6], {
    kernel_shape: [3, 3],
    strides: [2, 2],
    pads: [1, 1, 1, 0],
  }),
  maxPool('overlapping', [1, 2, 5, 5], { kernel_shape: [3, 2] }),
  maxPool('ceil_mode', [1, 2, 6, 7], { kernel_shape: [3, 3], strides: [2, 3], ceil_mode: 1 }),
  maxPool('dilations', [1, 2, 7, 7], { kernel_shape: [2, 3], dilations: [3, 2] }),
  maxPool('storage_order 1', [2, 2, 5, 4], {
    kernel_shape: [2, 2],
    strides: [2, 1],
    storage_order: 1,
  }),
  maxPool('storage_order 1 in 3-D', [1, 2, 3, 4, 5], {
    kernel_shape: [2, 2, 2],
    storage_order: 1,
  }),
  maxPool('SAME_LOWER', [1, 2, 5, 6], {
    kernel_shape: [2, 3],
    strides: [2, 2],
    auto_pad: 'SAME_LOWER',
  }),
  maxPool('1-D', [2, 2, 7], { kernel_shape: [3], strides: [2] }),
  maxPool('3-D', [1, 2, 3, 4, 3], { kernel_shape: [2, 2, 2] }),
  maxPool('of opset 22', [1, 1, 4, 4], { kernel_shape: [2, 2] }, { opset: 22 }),
  {
    name: 'MaxPool with ties',
    nodes: [node('MaxPool', ['x'], ['y'], { kernel_shape: [2, 2] })],
    inputs: { x: { dims: [1, 1, 3, 3], values: [0, 0, 1, 2, 2, 1, 2, 0, 1] } },
    check: firstOfTies,
  },
  {
    name: 'MaxPool whose indices are in use',
    nodes: [
      node('MaxPool', ['x'], ['p', 'i'], { kernel_shape: [2, 2], strides: [2, 2] }),
      node('MaxUnpool', ['p', 'i'], ['y'], { kernel_shape: [2, 2], strides: [2, 2] }),
    ],
    inputs: {
      x: { dims: [1, 2, 4, 4], values: Array.from({ length: 32 }, (_, i) => ((i * 13) % 32) - 40) },
    },
    check: ({ x }, seeds) => ({
      x: x.map((v, i) => {
        const [map, row, column] = [i >> 4, (i >> 2) & 3, i & 3];
        const corner = map * 16 + (row & 2) * 4 + (column & 2);
        const window = [0, 1, 4, 5].map((k) => x[corner + k]);
        return v === Math.max(...window) ? seeds.y[i] : 0;
      }),
    }),
  },
  {
    name: 'MaxUnpool',
    nodes: [node('MaxUnpool', ['x', 'i'], ['y'], { kernel_shape: [2, 2], strides: [2, 2] })],
    inputs: { x: { dims: [1, 1, 2, 2] }, i: indices },
    check: 'linear',
  },
  average('2x2, stride 2', [2, 3, 4, 6], { kernel_shape: [2, 2], strides: [2, 2] }),
  average('2, stride 2, 1-D', [2, 3, 6], { kernel_shape: [2], strides: [2] }),
  average('2x1x3, tiled', [1, 2, 4, 2, 3], { kernel_shape: [2, 1, 3], strides: [2, 1, 3] }),
  average('2x2, stride 2, cells left over', [1, 2, 5, 7], {
    kernel_shape: [2, 2],
    strides: [2, 2],
  }),
  ...averages,
  ...[
    [2, 3, 4, 5],
    [2, 3, 4],
    [1, 2, 2, 3, 2],
    [2, 3, 1, 1],
  ].map(
    (dims): GradientCase => ({
      name: `GlobalAveragePool [${dims}]`,
      nodes: [node('GlobalAveragePool', ['x'], ['y'])],
      inputs: { x: { dims } },
      check: 'linear',
    }),
  ),
  {
    name: 'GlobalMaxPool, ties share',
    nodes: [node('GlobalMaxPool', ['x'], ['y'])],
    inputs: { x: { dims: [1, 2, 2, 2], values: [1, 3, 3, 2, -1, -2, -3, -1] } },
    check: globalMax,
  },
  {
    name: 'GlobalMaxPool of one axis',
    nodes: [node('GlobalMaxPool', ['x'], ['y'])],
    inputs: { x: { dims: [2, 1, 4], values: [1, 3, 2, 2, -1, -2, -1, -1] } },
    check: globalMax,
  },
];
