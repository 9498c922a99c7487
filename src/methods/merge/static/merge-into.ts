import { readTensorBytes } from '../../../onnx/index.js';
import type { LabelledModel } from '../models.js';
import type { PairedTensor } from '../pair/pair.js';
import { toBytes, toFloats } from '../values.js';

/**
 * New values of a tensor, of those in each model.
 * @param index of the tensor among those merged, which seeds random choices
 */
export type MergeTensor = (
  values: Float32Array[],
  tensor: PairedTensor,
  index: number,
) => Float32Array;

/**
 * Gives the tensors of the first model their merged values. They are computed when they are read: at
 * no time is more in memory than one tensor of each model.
 */
export function mergeInto(
  models: readonly LabelledModel[],
  tensors: readonly PairedTensor[],
  merge: MergeTensor,
): void {
  const [{ model: template }, ...others] = models;
  for (const [index, tensor] of tensors.entries()) {
    const { dtype, shape } = tensor;
    const elements = shape.reduce((a, b) => a * b, 1);
    template.edits.set(tensor.tensors[0], async (first) => {
      const rest = await Promise.all(
        others.map(({ model }, i) => readTensorBytes(model, tensor.tensors[i + 1])),
      );
      // What all have in common stays as it is, to the last bit.
      if (rest.every((bytes) => Buffer.compare(bytes, first) === 0)) return first;
      const values = [first, ...rest].map((bytes) => toFloats(bytes, dtype, elements));
      return toBytes(merge(values, tensor, index), dtype);
    });
  }
}
