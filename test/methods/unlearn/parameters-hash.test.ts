import { createHash } from 'node:crypto';
import { parametersHash } from '../../../src/methods/unlearn/parameters-hash.js';
import { Model, makeTensor, readModel } from '../../../src/onnx/index.js';
import { goldenPath } from './golden-ssd.js';

const tensor = (name: string, shape: number[], values: number[]) =>
  makeTensor({
    name,
    dtype: 'float32',
    shape,
    bytes: new Uint8Array(Float32Array.from(values).buffer),
  });
const w = tensor('w', [1, 2], [1, 2]);
const b = tensor('b', [1], [3]);
const model = new Model({ opsetImport: [] });

test('is of names, types, shapes and bytes in order of name', async () => {
  const expected = createHash('sha256')
    .update('["b","float32",[1]]\n')
    .update(new Uint8Array(Float32Array.of(3).buffer))
    .update('["w","float32",[1,2]]\n')
    .update(new Uint8Array(Float32Array.of(1, 2).buffer))
    .digest('hex');
  expect(await parametersHash(model, [w, b])).toBe(expected);
  expect(await parametersHash(model, [b, w])).toBe(expected);
});

test('changes with each of them', async () => {
  const hashes = await Promise.all(
    [
      [w],
      [w, b],
      [tensor('v', [1, 2], [1, 2])],
      [tensor('w', [2, 1], [1, 2])],
      [tensor('w', [1, 2], [1, -2])],
      [{ ...w, dataType: 6 }], // int32
      [],
    ].map((tensors) => parametersHash(model, tensors)),
  );
  expect(new Set(hashes).size).toBe(hashes.length);
});

test('does not care about the graph, and sees edits', async () => {
  const path = goldenPath('cnn/cnn.onnx');
  const [one, other] = [await readModel(path), await readModel(path)];
  const parameters = one.proto.graph!.initializer!;
  const others = [...other.proto.graph!.initializer!].reverse();
  other.proto.graph!.node!.length = 0;
  const hash = await parametersHash(one, parameters);
  expect(await parametersHash(other, others)).toBe(hash);
  other.edits.set(others[0], (raw) => raw.map((byte) => byte ^ 1));
  expect(await parametersHash(other, others)).not.toBe(hash);
});
