import { float } from '../../../src/graph/build.js';
import { node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

export const cases: GradientCase[] = [0, 1].flatMap((transA) =>
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
