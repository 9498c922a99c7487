import { float } from '../../../src/graph/build.js';
import { node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

const gemms = [0, 1].flatMap((transA) =>
  [0, 1].flatMap((transB) =>
    [[2, 4], [4], [1], [], [2, 1]].map((c): GradientCase => {
      const gemm = node('Gemm', ['a', 'b', 'c'], ['y'], { transA, transB });
      gemm.attribute.push(float('alpha', 0.5), float('beta', 1.5));
      return {
        name: `Gemm transA ${transA} transB ${transB} c [${c}]`,
        nodes: [gemm],
        inputs: {
          a: { dims: transA ? [3, 2] : [2, 3] },
          b: { dims: transB ? [4, 3] : [3, 4] },
          c: { dims: c },
        },
      };
    }),
  ),
);

const shapes: [number[], number[]][] = [
  [
    [2, 3],
    [3, 4],
  ],
  [
    [2, 5, 3],
    [3, 4],
  ],
  [
    [2, 1, 5, 3],
    [3, 2],
  ],
  [
    [2, 3],
    [4, 3, 2],
  ],
  [
    [4, 2, 3],
    [4, 3, 2],
  ],
  [
    [2, 1, 2, 3],
    [3, 3, 2],
  ],
  [
    [4, 2, 3],
    [1, 3, 2],
  ],
  [
    [1, 2, 3],
    [4, 3, 2],
  ],
  [
    [1, 1, 3],
    [1, 3, 1],
  ],
  [[3], [3]],
  [[3], [3, 4]],
  [[2, 3], [3]],
  [[3], [2, 3, 4]],
  [[2, 5, 3], [3]],
  [
    [2, 3],
    [1, 1, 3, 4],
  ],
];

const transposed = (dims: number[], swap: number) =>
  swap ? [...dims.slice(0, -2), ...dims.slice(-2).reverse()] : dims;

export const cases: GradientCase[] = [
  ...gemms,
  ...shapes.map(([a, b]) => ({
    name: `MatMul [${a}] [${b}]`,
    nodes: [node('MatMul', ['a', 'b'], ['y'])],
    inputs: { a: { dims: a }, b: { dims: b } },
  })),
  {
    name: 'MatMul of a value and itself',
    nodes: [node('MatMul', ['a', 'a'], ['y'])],
    inputs: { a: { dims: [2, 3, 3] } },
  },
  ...shapes.flatMap(([a, b], i) => {
    // The four cases by turns, but vectors are not transposed.
    const vector = a.length === 1 || b.length === 1;
    return (vector ? [0] : [i % 4, (i + 1) % 4]).map((trans): GradientCase => {
      const [transA, transB] = [trans & 1, trans >> 1];
      const product = node(
        'FusedMatMul',
        ['a', 'b'],
        ['y'],
        { transA, transB },
        { domain: 'com.microsoft' },
      );
      product.attribute.push(float('alpha', 0.5));
      return {
        name: `FusedMatMul [${a}] [${b}] transA ${transA} transB ${transB}`,
        nodes: [product],
        inputs: { a: { dims: transposed(a, transA) }, b: { dims: transposed(b, transB) } },
        domains: ['com.microsoft'],
      };
    });
  }),
];
