import { allTensors, isFloat, type Model, readTensorFloat32, tensorInfo } from '../onnx/index.js';
import { gzippedBytes } from './size.js';

/** Models up to this many bytes are read whole to be measured; beyond, it would take minutes. */
export const largestRead = 1e9;

/** Models are compressed, to be measured, up to this size. */
const largestCompressed = 32e6;

export interface SizeMeasure {
  /** On disk, external data included. */
  bytes: number;
  /** After gzip; absent for large models unless asked for. */
  gzipBytes?: number;
  /** Values in floating-point and quantized weight tensors. */
  parameters: number;
  /** How many of them are zero; absent for large models unless asked for. */
  zeros?: number;
}

/**
 * Sizes of a model on disk. Values in integer tensors count when they have at least two dimensions.
 * @param read whether to read every value, to count zeros
 * @param compress whether to measure the gzipped size
 */
export async function measureSize(
  model: Model,
  read = model.sizeBytes <= largestRead,
  compress = model.sizeBytes <= largestCompressed,
): Promise<SizeMeasure> {
  let parameters = 0;
  let zeros = 0;
  for (const { tensor } of allTensors(model.proto)) {
    const { dtype, elements, shape, place } = tensorInfo(tensor);
    if (place === 'empty' || !(isFloat(dtype) || (/^u?int[248]$/.test(dtype) && shape.length > 1)))
      continue;
    parameters += elements;
    if (read) zeros += countZeros(await readTensorFloat32(model, tensor));
  }
  const files = model.path ? [model.path, ...model.externalFiles()] : [];
  return {
    bytes: model.sizeBytes,
    ...(compress && { gzipBytes: await gzippedBytes(files) }),
    ...(read && { zeros }),
    parameters,
  };
}

export function countZeros(values: Float32Array): number {
  let zeros = 0;
  for (let i = 0; i < values.length; i++) if (values[i] === 0) zeros++;
  return zeros;
}
