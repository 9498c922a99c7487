import { float, int } from '../graph/build.js';
import { broadcastDims, product, reshapeFrom, unbroadcast } from './emit.js';
import type { Pullback } from './rule.js';
import type { Tape } from './tape.js';

/** y = alpha op(a) op(b), where op transposes the last two axes or does nothing. */
export interface ScaledProduct {
  alpha: number;
  transA: boolean;
  transB: boolean;
}

/**
 * da and db of a product of matrices, vectors, or batches of matrices that broadcast: da = alpha g bᵀ and
 * db = alpha aᵀ g, where nothing is transposed.
 */
export function productGradients(
  t: Tape,
  g: string,
  { node, need }: Pullback,
  { alpha, transA, transB }: ScaledProduct,
): (string | undefined)[] {
  const [nameA, nameB] = node.input;
  // A vector is a row on the left and a column on the right.
  const dimsA = t.dims(nameA).length === 1 ? [1, ...t.dims(nameA)] : t.dims(nameA);
  const dimsB = t.dims(nameB).length === 1 ? [...t.dims(nameB), 1] : t.dims(nameB);
  const batch = broadcastDims(dimsA.slice(0, -2), dimsB.slice(0, -2));
  const rows = dimsA[dimsA.length - (transA ? 1 : 2)];
  const columns = dimsB[dimsB.length - (transB ? 2 : 1)];
  const dy = reshapeFrom(t, g, t.dims(node.output[0]), [...batch, rows, columns]);

  const attributes = (transX: boolean, transY: boolean) => [
    float('alpha', alpha),
    int('transA', transX ? 1 : 0),
    int('transB', transY ? 1 : 0),
  ];
  const multiply = (x: string, y: string, transX: boolean, transY: boolean) =>
    t.emit('FusedMatMul', [x, y], attributes(transX, transY), 'com.microsoft');
  const overBatch = (dx: string, dims: readonly number[], name: string) => {
    const sum = unbroadcast(t, dx, [...batch, ...dims.slice(-2)], dims);
    return reshapeFrom(t, sum, dims, t.dims(name));
  };
  const left = () => {
    const b = reshapeFrom(t, nameB, t.dims(nameB), dimsB);
    const da = transA ? multiply(b, dy, transB, true) : multiply(dy, b, false, !transB);
    return overBatch(da, dimsA, nameA);
  };
  const right = () => {
    if (!transA && product(dimsB.slice(0, -2)) === 1) {
      // One matrix for the whole batch: one product instead of a batch of products and its sum.
      const [m, k] = [product(dimsA.slice(0, -1)), dimsA[dimsA.length - 1]];
      const a = reshapeFrom(t, nameA, t.dims(nameA), [m, k]);
      const y = reshapeFrom(t, dy, [...batch, rows, columns], [m, columns]);
      const db = t.emit('Gemm', transB ? [y, a] : [a, y], attributes(true, false));
      return reshapeFrom(t, db, dimsB.slice(-2), t.dims(nameB));
    }
    const a = reshapeFrom(t, nameA, t.dims(nameA), dimsA);
    const db = transB ? multiply(dy, a, true, transA) : multiply(a, dy, !transA, false);
    return overBatch(db, dimsB, nameB);
  };
  return [need[0] ? left() : undefined, need[1] ? right() : undefined];
}
