import { allTensors, isFloat, type Model, readTensorFloat32, tensorInfo } from '../onnx/index.js';
import { gzippedBytes } from './size.js';

/** Weights are read and compressed to be measured up to this size; beyond, it would take minutes. */
export const largestMeasured = 1e9;

export interface SizeMeasure {
  /** On disk, external data included. */
  bytes: number;
  /** After gzip; absent above `largestMeasured`. */
  gzipBytes?: number;
  /** Values in floating-point and quantized weight tensors. */
  parameters: number;
  /** How many of them are zero; absent above `largestMeasured`. */
  zeros?: number;
}

/**
 * Sizes of a model on disk. Values in integer tensors count when they have at least two dimensions.
 * @param measured whether to read every value, for zeros and the gzipped size
 */
export async function measureSize(
  model: Model,
  measured = model.sizeBytes <= largestMeasured,
): Promise<SizeMeasure> {
  let parameters = 0;
  let zeros = 0;
  for (const { tensor } of allTensors(model.proto)) {
    const { dtype, elements, shape, place } = tensorInfo(tensor);
    if (place === 'empty' || !(isFloat(dtype) || (/^u?int[248]$/.test(dtype) && shape.length > 1)))
      continue;
    parameters += elements;
    if (measured) zeros += countZeros(await readTensorFloat32(model, tensor));
  }
  const files = model.path ? [model.path, ...model.externalFiles()] : [];
  return {
    bytes: model.sizeBytes,
    ...(measured && { gzipBytes: await gzippedBytes(files), zeros }),
    parameters,
  };
}

export function countZeros(values: Float32Array): number {
  let zeros = 0;
  for (let i = 0; i < values.length; i++) if (values[i] === 0) zeros++;
  return zeros;
}
