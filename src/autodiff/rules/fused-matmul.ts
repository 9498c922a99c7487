import { floatAttribute, intAttribute } from '../../graph/nodes.js';
import { productGradients } from '../matrix-product.js';
import { refuse, single } from '../rule.js';

/** y = alpha op(a) op(b), where op may transpose matrices. */
export const FusedMatMul = single((t, g, p) => {
  const { node } = p;
  const set = (name: string) => intAttribute(node, name, 0) === 1;
  for (const name of ['transBatchA', 'transBatchB']) if (set(name)) refuse(node, name);
  const [transA, transB] = [set('transA'), set('transB')];
  // What ONNX Runtime computes then is no product of matrices.
  if ((transA || transB) && node.input.some((name) => t.dims(name).length === 1))
    refuse(node, 'a vector and a transposed operand');
  return productGradients(t, g, p, { alpha: floatAttribute(node, 'alpha', 1), transA, transB });
});
