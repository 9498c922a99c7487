import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { ResectError } from '../../src/errors.js';
import {
  allTensors,
  encodeModel,
  parseModel,
  readModel,
  readTensorBytes,
  tensorInfo,
} from '../../src/onnx/index.js';
import { realModels } from './models.js';
import { concat, field, message, modelOf, tensorModel, varint } from './wire.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'resect-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Does all that can be done with bytes; returns the error that a user would see, if any. */
async function tryAll(bytes: Uint8Array): Promise<ResectError | undefined> {
  try {
    const model = parseModel(bytes);
    for (const { tensor } of allTensors(model.proto)) {
      if (tensorInfo(tensor).dtype !== 'string') await readTensorBytes(model, tensor);
    }
    parseModel(encodeModel(model.proto));
    return undefined;
  } catch (error) {
    if (error instanceof ResectError) return error;
    throw error;
  }
}

/** Byte changes, cuts and insertions. */
const mutation = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  kind: fc.constantFrom('flip', 'set', 'cut', 'insert', 'truncate'),
  byte: fc.integer({ min: 0, max: 255 }),
  length: fc.integer({ min: 1, max: 12 }),
});

/** A model with its large tensors cut to one element, so that changes hit the structure. */
function skeleton(path: string): Uint8Array {
  const { proto } = parseModel(new Uint8Array(readFileSync(path)));
  for (const { tensor } of allTensors(proto)) {
    const { byteLength, elements, place } = tensorInfo(tensor);
    if (place !== 'raw' || byteLength < 64) continue;
    tensor.dims = [1];
    tensor.rawData = tensor.rawData?.subarray(0, byteLength / elements);
  }
  return encodeModel(proto);
}

test.each(realModels)('any change of %s gives a model or a clear error', async (_, path) => {
  const original = skeleton(path);
  expect(await tryAll(original)).toBeUndefined();
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 8 }), async (mutations) => {
      let bytes: Uint8Array = original.slice();
      for (const { at, kind, byte, length } of mutations) {
        const i = Math.floor(at * bytes.length);
        if (kind === 'flip') bytes[i] ^= 1 << (byte & 7);
        else if (kind === 'set') bytes[i] = byte;
        else if (kind === 'truncate') bytes = bytes.subarray(0, Math.max(1, i));
        else if (kind === 'cut') bytes = concat(bytes.subarray(0, i), bytes.subarray(i + length));
        else
          bytes = concat(
            bytes.subarray(0, i),
            new Uint8Array(length).fill(byte),
            bytes.subarray(i),
          );
      }
      const error = await tryAll(bytes);
      expect(error?.exitCode ?? 5).toBe(5);
    }),
    { numRuns: 100 },
  );
});

test('any bytes at all give a model or a clear error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      const error = await tryAll(concat(Uint8Array.of(0x3a), bytes)); // 0x3a: a graph follows
      expect(error?.exitCode ?? 5).toBe(5);
    }),
    { numRuns: 1000 },
  );
});

const errorOf = (bytes: Uint8Array) => {
  try {
    parseModel(bytes, 'model.onnx');
  } catch (error) {
    return error;
  }
  return undefined;
};

test.each<[string, Uint8Array, string]>([
  ['PNG', Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), 'PNG'],
  ['JSON', Buffer.from('{"a": 1}'), 'JSON'],
  [
    'safetensors',
    concat(new Uint8Array([64, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{"w":')),
    'safetensors',
  ],
  ['pickle', Buffer.from('\x80\x04\x95', 'latin1'), 'pickle'],
  ['PyTorch', Buffer.from('PK\x03\x04......', 'latin1'), 'PyTorch'],
  ['Git LFS', Buffer.from('version https://git-lfs.github.com/spec/v1\n'), 'Git LFS'],
  ['HTML', Buffer.from('<!doctype html>'), 'HTML'],
])('a %s file is recognized', (_, bytes, name) => {
  expect(errorOf(new Uint8Array(bytes))).toMatchObject({
    exitCode: 5,
    message: 'the file is not an ONNX model',
    detail: { where: 'model.onnx', got: expect.stringContaining(name), hint: expect.any(String) },
  });
});

test('an empty file, and a message without a graph', () => {
  expect(errorOf(new Uint8Array())).toMatchObject({ exitCode: 5, message: 'the model is empty' });
  expect(errorOf(field(1, 8))).toMatchObject({ exitCode: 5, message: 'the model has no graph' });
  expect(errorOf(field(7, 3))).toMatchObject({ message: 'the model has no graph' }); // not a message
});

test('a length that lies is refused before anything is allocated', () => {
  const promise = concat(
    Uint8Array.of(0x3a),
    Uint8Array.from(varint(2 ** 31)),
    Uint8Array.of(1, 2),
  );
  expect(errorOf(promise)).toMatchObject({
    exitCode: 5,
    detail: {
      where: expect.stringMatching(/^model.onnx: byte \d+ of 8$/),
      got: expect.stringContaining('promises'),
    },
  });
});

test('text that is not UTF-8 is refused, not replaced', () => {
  const bytes = modelOf(field(2, Uint8Array.of(0x61, 0xff)));
  expect(errorOf(bytes)).toMatchObject({ exitCode: 5, detail: { got: 'text that is not UTF-8' } });
  expect(parseModel(modelOf(field(2, '\u{feff}x'))).proto.graph?.name).toBe('\u{feff}x');
});

test('graphs nested without end are refused', () => {
  let graph = field(2, 'innermost');
  for (let depth = 0; depth < 20; depth++) graph = message(1, message(5, message(6, graph)));
  expect(parseModel(modelOf(graph)).proto.graph?.node).toHaveLength(1);
  for (let depth = 0; depth < 2000; depth++) graph = message(1, message(5, message(6, graph)));
  expect(errorOf(modelOf(graph))).toMatchObject({
    exitCode: 5,
    detail: { got: expect.stringContaining('nested') },
  });
});

test('a dimension that no number can hold is refused', () => {
  expect(errorOf(tensorModel(field(1, 2n ** 62n)))).toMatchObject({ exitCode: 5 });
});

test('a missing file, a folder and a pipe are refused', async () => {
  await expect(readModel(join(folder, 'none.onnx'))).rejects.toMatchObject({ exitCode: 7 });
  await expect(readModel(folder)).rejects.toMatchObject({
    exitCode: 7,
    detail: { got: 'a folder' },
  });
  await expect(readModel('/dev/zero')).rejects.toMatchObject({ exitCode: 7 });
  const pipe = join(folder, 'pipe');
  if (spawnSync('mkfifo', [pipe]).status === 0)
    await expect(readModel(pipe)).rejects.toMatchObject({ exitCode: 7, detail: { got: 'a pipe' } });
});

test('a file of 2 GiB is refused without reading it', async () => {
  const path = join(folder, 'large.onnx');
  writeFileSync(path, '');
  truncateSync(path, 2 ** 31);
  await expect(readModel(path)).rejects.toMatchObject({
    exitCode: 5,
    detail: { hint: expect.stringContaining('external data') },
  });
});
