import type { TensorInfo } from '../../onnx/index.js';
import { weightedSum } from './maths/linear.js';
import { toBytes, toFloats } from './values.js';

/**
 * The tensor between two models' values of it.
 * @param expert, generalist raw bytes
 * @param share of the generalist
 */
export function interpolate(
  info: Pick<TensorInfo, 'dtype' | 'elements'>,
  expert: Uint8Array,
  generalist: Uint8Array,
  share: number,
): Uint8Array {
  const { dtype, elements } = info;
  const tensors = [expert, generalist].map((raw) => toFloats(raw, dtype, elements));
  return toBytes(weightedSum(tensors, [1 - share, share]), dtype);
}
