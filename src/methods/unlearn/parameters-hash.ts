import { createHash } from 'node:crypto';
import { type Model, readTensorBytes, type TensorProto, tensorInfo } from '../../onnx/index.js';
import { byName } from './safetensors.js';

/** A call of the hash takes less than 2 GiB. */
const BLOCK = 2 ** 30;

/**
 * SHA-256, in hex, of parameters whatever the graph around them: in order of name, a line of JSON with
 * `[name, dtype, shape]`, then the values in raw form. One tensor at a time is in memory.
 * @throws as `readTensorBytes`
 */
export async function parametersHash(
  model: Model,
  parameters: readonly TensorProto[],
): Promise<string> {
  const hash = createHash('sha256');
  for (const tensor of [...parameters].sort(byName)) {
    const { name, dtype, shape } = tensorInfo(tensor);
    hash.update(`${JSON.stringify([name, dtype, shape])}\n`);
    const bytes = await readTensorBytes(model, tensor);
    for (let at = 0; at < bytes.length; at += BLOCK) hash.update(bytes.subarray(at, at + BLOCK));
  }
  return hash.digest('hex');
}
