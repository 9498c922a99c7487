import type { Floats } from '../../autodiff/optimizer.js';
import {
  dtypeBits,
  encodeFloat32,
  type Model,
  type TensorProto,
  tensorInfo,
} from '../../onnx/index.js';

/** New values for some elements of a tensor. */
export interface ElementEdit {
  /** Positions, row-major. */
  at: Uint32Array;
  /** Their new values. */
  values: Floats;
}

/** The elements in which `after` differs from `before`. */
export function changedElements(before: Floats, after: Floats): ElementEdit {
  // NaN stays NaN.
  const differs = (i: number) =>
    before[i] !== after[i] && !(Number.isNaN(before[i]) && Number.isNaN(after[i]));
  let count = 0;
  for (let i = 0; i < before.length; i++) if (differs(i)) count++;
  const at = new Uint32Array(count);
  const values = after instanceof Float64Array ? new Float64Array(count) : new Float32Array(count);
  for (let i = 0, k = 0; i < before.length; i++) {
    if (!differs(i)) continue;
    at[k] = i;
    values[k++] = after[i];
  }
  return { at, values };
}

/** Changes elements of a stored tensor, rounded once to its own type; every other bit stays. */
export function editElements(model: Model, tensor: TensorProto, { at, values }: ElementEdit): void {
  const { dtype } = tensorInfo(tensor);
  const width = dtypeBits(dtype) / 8;
  model.edits.set(tensor, (raw) => {
    const encoded =
      dtype === 'float64'
        ? new Uint8Array(Float64Array.from(values).buffer)
        : encodeFloat32(Float32Array.from(values), dtype);
    const edited = new Uint8Array(raw);
    for (const [k, i] of at.entries())
      edited.set(encoded.subarray(k * width, (k + 1) * width), i * width);
    return edited;
  });
}
