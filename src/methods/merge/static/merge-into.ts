import {
  dtypeBits,
  readTensorBytes,
  readTensorPart,
  type TensorEdit,
} from '../../../onnx/index.js';
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
 * Gives the tensors of the first model their merged values. They are computed when they are read or
 * written: at no time is more in memory than one tensor of each model.
 * @param elementwise whether a merged value depends on nothing but the values in its place: then tensors
 *   are written part by part
 */
export function mergeInto(
  models: readonly LabelledModel[],
  tensors: readonly PairedTensor[],
  merge: MergeTensor,
  { elementwise = false }: { elementwise?: boolean } = {},
): void {
  const [{ model: template }, ...others] = models;
  for (const [index, tensor] of tensors.entries()) {
    const { dtype } = tensor;
    const [own, ...stored] = tensor.tensors;
    const merged = (first: Uint8Array, rest: Uint8Array[]): Uint8Array => {
      // What all have in common stays as it is, to the last bit.
      if (rest.every((bytes) => Buffer.compare(bytes, first) === 0)) return first;
      const elements = (8 * first.length) / dtypeBits(dtype);
      const values = [first, ...rest].map((bytes) => toFloats(bytes, dtype, elements));
      return toBytes(merge(values, tensor, index), dtype);
    };
    const edit: TensorEdit = async (first) =>
      merged(
        first,
        await Promise.all(others.map(({ model }, i) => readTensorBytes(model, stored[i]))),
      );
    if (elementwise && others.every(({ model }, i) => !model.edits.has(stored[i])))
      edit.part = async (first, offset) =>
        merged(
          first,
          await Promise.all(
            others.map(({ model }, i) => readTensorPart(model, stored[i], offset, first.length)),
          ),
        );
    template.edits.set(own, edit);
  }
}
