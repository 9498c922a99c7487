import {
  dtypeBits,
  encodeFloat32,
  type Model,
  readTensorFloat32,
  type TensorEdit,
  tensorInfo,
} from '../onnx/index.js';
import type { Axis, ConstantView, Dequantization } from './constants.js';

/**
 * A weight matrix as a linear layer uses it, `[out, in]`, over the tensor that stores it: row r,
 * column c is the stored element `offset(outAxes, r) + offset(inAxes, c)`.
 */
export interface WeightMatrix {
  view: ConstantView;
  rows: number;
  cols: number;
  outAxes: Axis[];
  inAxes: Axis[];
  /** Groups of a convolution: group g's rows see only its own slice of the input features. */
  groups: number;
}

/**
 * The weights `[rows, cols]` as float32, dequantized where storage is integer. May be a view on the
 * model: do not write to it.
 */
export async function readMatrix(model: Model, weight: WeightMatrix): Promise<Float32Array> {
  const { rows, cols, view } = weight;
  let stored = await readTensorFloat32(model, view.tensor);
  if (view.dequantization) stored = await dequantize(model, stored, view.dequantization);
  const rowOffset = offsets(weight.outAxes);
  const colOffset = offsets(weight.inAxes);
  if (isIdentity(rowOffset, cols) && isIdentity(colOffset, 1)) return stored;
  const matrix = new Float32Array(rows * cols);
  // Square tiles, so that neither side of a transpose strides through memory.
  const tile = 64;
  for (let r0 = 0; r0 < rows; r0 += tile) {
    const r1 = Math.min(r0 + tile, rows);
    for (let c0 = 0; c0 < cols; c0 += tile) {
      const c1 = Math.min(c0 + tile, cols);
      for (let r = r0; r < r1; r++) {
        const base = rowOffset[r];
        for (let c = c0; c < c1; c++) matrix[r * cols + c] = stored[base + colOffset[c]];
      }
    }
  }
  return matrix;
}

/** Arrays of elements by their size in bytes; float64 is written as an array of floats. */
const integers = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: Float64Array };

/**
 * The edit that sets pruned weights to zero (the zero point, in integer storage) and leaves every
 * other bit as it is. Holds one bit per weight.
 * @param mask [rows, cols], 1 = keep
 */
export async function maskEdit(
  model: Model,
  weight: WeightMatrix,
  mask: Uint8Array,
): Promise<TensorEdit> {
  const { rows, cols, view } = weight;
  const pruned = packPruned(mask);
  const zero = await zeroPoints(model, view.dequantization);
  const bytes = (dtypeBits(tensorInfo(view.tensor).dtype) / 8) as keyof typeof integers;
  return (raw) => {
    const edited = new Uint8Array(raw);
    // Only the bits count: zero is zero in every type, and zero points are integers of up to 16 bits.
    const elements = new integers[bytes](edited.buffer);
    const rowOffset = offsets(weight.outAxes);
    const colOffset = offsets(weight.inAxes);
    for (let r = 0, i = 0; r < rows; r++) {
      const row = rowOffset[r];
      for (let c = 0; c < cols; c++, i++) {
        if ((pruned[i >> 3] & (1 << (i & 7))) === 0) continue;
        const element = row + colOffset[c];
        elements[element] = zero ? zero(element) : 0;
      }
    }
    return edited;
  };
}

/**
 * The edit that stores new values, rounded to the tensor's type.
 * @param values [rows, cols]
 */
export async function replaceEdit(
  model: Model,
  weight: WeightMatrix,
  values: Float32Array,
): Promise<TensorEdit> {
  const { rows, cols, view } = weight;
  const { dtype, elements } = tensorInfo(view.tensor);
  const stored = new Float32Array(elements);
  const rowOffset = offsets(weight.outAxes);
  const colOffset = offsets(weight.inAxes);
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++, i++) stored[rowOffset[r] + colOffset[c]] = values[i];
  }
  if (view.dequantization) await quantize(model, stored, view.dequantization);
  const bytes = encodeFloat32(stored, dtype);
  return () => bytes;
}

/** Stored offset of every position along the given axes, last axis fastest. */
function offsets(axes: readonly Axis[]): Float64Array {
  let all = new Float64Array(1);
  for (const { size, stride } of axes) {
    const next = new Float64Array(all.length * size);
    for (let i = 0; i < all.length; i++)
      for (let s = 0; s < size; s++) next[i * size + s] = all[i] + s * stride;
    all = next;
  }
  return all;
}

const isIdentity = (offset: Float64Array, step: number): boolean =>
  offset.every((o, i) => o === i * step);

function packPruned(mask: Uint8Array): Uint8Array {
  const packed = new Uint8Array(Math.ceil(mask.length / 8));
  for (let i = 0; i < mask.length; i++) if (mask[i] === 0) packed[i >> 3] |= 1 << (i & 7);
  return packed;
}

/** Which entry of a per-axis scale or zero point holds for a stored element. */
const scaleIndex = (axis: Axis | undefined, element: number): number =>
  axis ? Math.floor(element / axis.stride) % axis.size : 0;

async function zeroPoints(model: Model, q: Dequantization | undefined) {
  if (!q?.zeroPoint) return undefined;
  const points = await readTensorFloat32(model, q.zeroPoint);
  return (element: number) => points[scaleIndex(q.axis, element)];
}

async function dequantize(
  model: Model,
  stored: Float32Array,
  q: Dequantization,
): Promise<Float32Array> {
  const scale = await readTensorFloat32(model, q.scale);
  const zero = await zeroPoints(model, q);
  return stored.map((v, i) => (v - (zero?.(i) ?? 0)) * scale[scaleIndex(q.axis, i)]);
}

async function quantize(model: Model, values: Float32Array, q: Dequantization): Promise<void> {
  const scale = await readTensorFloat32(model, q.scale);
  const zero = await zeroPoints(model, q);
  for (let i = 0; i < values.length; i++) {
    values[i] = Math.round(values[i] / scale[scaleIndex(q.axis, i)]) + (zero?.(i) ?? 0);
  }
}
