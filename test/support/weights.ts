import { allTensors, readModel, readTensorFloat32 } from '../../src/onnx/index.js';

/** The values of a stored tensor, by its name. */
export async function weightsOf(path: string, name: string): Promise<Float32Array> {
  const model = await readModel(path);
  for (const { tensor } of allTensors(model.proto))
    if (tensor.name === name) return readTensorFloat32(model, tensor);
  throw new Error(`no tensor ${name} in ${path}`);
}

export const zeroFraction = (values: Float32Array): number =>
  values.reduce((zeros, v) => zeros + (v === 0 ? 1 : 0), 0) / values.length;
