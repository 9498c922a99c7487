import { floatAttribute, intAttribute } from '../../../graph/nodes.js';
import type { WeightLayer } from '../../../graph/weight-layers.js';

/** Why a product cannot be a product with activations in rows and packed weights in columns. */
export function productProblem({ node, op }: WeightLayer): string | undefined {
  if (op === 'Conv') return 'convolutions compute in floats';
  if (op === 'Gemm' && intAttribute(node, 'transA', 0)) return 'its activations are transposed';
  return undefined;
}

/** The constant factor on a product. */
export const productFactor = ({ node, op }: WeightLayer): number =>
  op === 'Gemm' ? floatAttribute(node, 'alpha', 1) : 1;

/** Scales with the factor of the product in them. */
export const foldFactor = (scales: Float32Array, factor: number): Float32Array =>
  factor === 1 ? scales : scales.map((s) => s * factor);
