import {
  allTensors,
  type Model,
  readModel,
  readTensorBytes,
  readTensorFloat32,
  tensorInfo,
} from '../../src/onnx/index.js';

/** The values of a stored tensor, by its name. */
export async function weightsOf(path: string, name: string): Promise<Float32Array> {
  const model = await readModel(path);
  for (const { tensor } of allTensors(model.proto))
    if (tensor.name === name) return readTensorFloat32(model, tensor);
  throw new Error(`no tensor ${name} in ${path}`);
}

export const zeroFraction = (values: Float32Array): number =>
  values.reduce((zeros, v) => zeros + (v === 0 ? 1 : 0), 0) / values.length;

/** Names of the tensors whose bytes differ; both models must have the same tensors. */
export async function changedTensors(before: string, after: string): Promise<string[]> {
  const [a, b] = [await readModel(before), await readModel(after)];
  const [x, y] = [await contents(a), await contents(b)];
  expect([...y.keys()]).toEqual([...x.keys()]);
  return [...x].flatMap(([name, bytes]) => (Buffer.compare(bytes, y.get(name)!) ? name : []));
}

async function contents(model: Model): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  for (const { tensor } of allTensors(model.proto)) {
    const { name, dtype, place, byteLength } = tensorInfo(tensor);
    if (dtype === 'string' || (place === 'empty' && byteLength > 0)) continue;
    // Constants in nodes may have no name, or share one.
    found.set(`${found.size} ${name}`, await readTensorBytes(model, tensor));
  }
  return found;
}
