import { inFile } from '../../../errors.js';
import { readTensorBytes, tensorInfo } from '../../../onnx/index.js';
import type { LabelledModel } from '../models.js';
import type { StoredConstant } from './structure.js';

/** `float32[3, 4]` */
export function kindOf({ tensor }: StoredConstant): string {
  const { dtype, shape } = tensorInfo(tensor);
  return `${dtype}[${shape.join(', ')}]`;
}

/**
 * Whether two tensors of one type and shape hold the same values, however they are stored.
 * @throws {ResectError} exit 5 and 7 when they cannot be read
 */
export async function sameValues(
  [p, q]: readonly [LabelledModel, LabelledModel],
  [a, b]: readonly [StoredConstant, StoredConstant],
): Promise<boolean> {
  if (tensorInfo(a.tensor).dtype === 'string') {
    const [s, t] = [a, b].map(({ tensor }) => tensor.stringData ?? []);
    return s.length === t.length && s.every((text, i) => Buffer.compare(text, t[i]) === 0);
  }
  const read = ({ model, label }: LabelledModel, { tensor }: StoredConstant) =>
    inFile(label, () => readTensorBytes(model, tensor));
  return Buffer.compare(await read(p, a), await read(q, b)) === 0;
}
