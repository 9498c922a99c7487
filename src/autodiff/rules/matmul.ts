import { float, int } from '../../graph/build.js';
import { floatAttribute, intAttribute } from '../../graph/nodes.js';
import { scale, unbroadcast } from '../emit.js';
import { productGradients } from '../matrix-product.js';
import { single } from '../rule.js';

/** y = alpha op(a) op(b) + beta c, where op may transpose. */
export const Gemm = single((t, g, { node, need }) => {
  const [a, b, c] = node.input;
  const alpha = floatAttribute(node, 'alpha', 1);
  const [transA, transB] = [intAttribute(node, 'transA', 0), intAttribute(node, 'transB', 0)];
  const gemm = (x: string, y: string, tx: number, ty: number) =>
    t.emit('Gemm', [x, y], [float('alpha', alpha), int('transA', tx), int('transB', ty)]);
  return [
    need[0] ? (transA ? gemm(b, g, transB, 1) : gemm(g, b, 0, transB ? 0 : 1)) : undefined,
    need[1] ? (transB ? gemm(g, a, 1, transA) : gemm(a, g, transA ? 0 : 1, 0)) : undefined,
    need[2]
      ? scale(
          t,
          unbroadcast(t, g, t.dims(node.output[0]), t.dims(c)),
          floatAttribute(node, 'beta', 1),
          c,
        )
      : undefined,
  ];
});

/** y = a b, for matrices, vectors and batches of matrices that broadcast: da = g bᵀ, db = aᵀ g. */
export const MatMul = single((t, g, p) =>
  productGradients(t, g, p, { alpha: 1, transA: false, transB: false }),
);
