import { ExitCode, ResectError } from '../errors.js';
import {
  allTensors,
  type Model,
  readModel,
  readTensorBytes,
  type TensorProto,
  tensorInfo,
} from '../onnx/index.js';

/**
 * Reads a written model back and compares it, tensor by tensor, with what it should be.
 * @returns the model as written
 * @throws {ResectError} exit 3
 */
export async function verifyWritten(intended: Model, path: string): Promise<Model> {
  const written = await readModel(path);
  const expected = [...allTensors(intended.proto)].map(({ tensor }) => tensor);
  const actual = [...allTensors(written.proto)].map(({ tensor }) => tensor);
  if (expected.length !== actual.length) {
    throw failure(path, `${expected.length} tensors`, `${actual.length}`);
  }
  for (const [i, tensor] of expected.entries()) {
    if (!(await sameTensor(intended, tensor, written, actual[i]))) {
      throw failure(
        `${path}: tensor ${tensor.name}`,
        'the values that were to be written',
        'others',
      );
    }
  }
  return written;
}

async function sameTensor(
  a: Model,
  one: TensorProto,
  b: Model,
  other: TensorProto,
): Promise<boolean> {
  const [x, y] = [tensorInfo(one), tensorInfo(other)];
  if (x.name !== y.name || x.dtype !== y.dtype || x.shape.join() !== y.shape.join()) return false;
  if (x.place === 'empty' || x.dtype === 'string' || x.dtype === 'unknown') return true;
  return Buffer.compare(await readTensorBytes(a, one), await readTensorBytes(b, other)) === 0;
}

/** The failure of a written model that does not run where the original does. */
export const refusedByRuntime = (path: string, { message, detail }: ResectError) =>
  failure(path, 'a model that runs, as the original does', detail.got ?? message);

const failure = (where: string, expected: string, got: string) =>
  new ResectError('The written model failed verification.', ExitCode.verification, {
    where,
    expected,
    got,
    hint: 'Nothing was kept. Please report this, with the model if you can.',
  });
