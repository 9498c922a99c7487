import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readRange } from '../../src/onnx/external.js';
import { parseModel, readModel, readTensorBytes, tensorInfo } from '../../src/onnx/index.js';
import { concat, field, message, modelOf } from './wire.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'resect-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const entry = (key: string, value: string) => field(13, concat(field(1, key), field(2, value)));

/** An initializer of `length` uint8 values in another file. */
const external = (length: number, entries: Record<string, string>) =>
  message(
    5,
    field(1, length),
    field(2, 2),
    field(8, 'w'),
    ...Object.entries(entries).map(([key, value]) => entry(key, value)),
    field(14, 1),
  );

function write(name: string, ...initializers: Uint8Array[]): string {
  const path = join(folder, name);
  writeFileSync(path, modelOf(...initializers));
  return path;
}

async function values(path: string): Promise<number[][]> {
  const model = await readModel(path);
  const tensors = model.proto.graph!.initializer;
  return Promise.all(tensors.map(async (tensor) => [...(await readTensorBytes(model, tensor))]));
}

test('ranges are read wherever they are: unaligned, shared, overlapping, in several files', async () => {
  mkdirSync(join(folder, 'sub'));
  writeFileSync(join(folder, 'a.bin'), Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7));
  writeFileSync(join(folder, 'sub/b.bin'), Uint8Array.of(9, 8));
  const path = write(
    'm.onnx',
    external(3, { location: 'a.bin', offset: '1', length: '3' }),
    external(3, { location: 'a.bin', offset: '1', length: '3' }),
    external(4, { location: './a.bin', offset: '3', checksum: 'x' }),
    external(2, { location: 'sub/b.bin' }),
    external(0, { location: 'a.bin', offset: '8', length: '0' }),
  );
  expect(await values(path)).toEqual([[1, 2, 3], [1, 2, 3], [3, 4, 5, 6], [9, 8], []]);

  const model = await readModel(path);
  expect(model.externalFiles()).toEqual([join(folder, 'a.bin'), join(folder, 'sub/b.bin')]);
  const file = modelOf();
  expect(model.sizeBytes).toBeGreaterThan(file.length + 10);
  expect(tensorInfo(model.proto.graph!.initializer[0])).toMatchObject({
    place: 'external',
    byteLength: 3,
  });
});

test('the hash covers the model and its weights, in order of name', async () => {
  writeFileSync(join(folder, 'b.bin'), 'bb');
  writeFileSync(join(folder, 'a.bin'), 'aa');
  const proto = [external(2, { location: 'b.bin' }), external(2, { location: 'a.bin' })];
  const expected = createHash('sha256')
    .update(modelOf(...proto))
    .update('aabb')
    .digest('hex');
  const path = write('m.onnx', ...proto);
  expect(await (await readModel(path)).hash()).toBe(expected);
  writeFileSync(join(folder, 'b.bin'), 'bc');
  expect(await (await readModel(path)).hash()).not.toBe(expected);
});

describe('an unsafe location is refused when the model is opened', () => {
  beforeEach(() => {
    mkdirSync(join(folder, 'inner'));
    writeFileSync(join(folder, 'secret'), 'secret');
  });
  const open = (location: string) => readModel(write('inner/m.onnx', external(6, { location })));

  test.each([
    '../secret',
    'x/../../secret',
    '/etc/passwd',
    'C:\\secret',
    '\\\\host\\secret',
    '..\\secret',
    '.',
    'a\0b',
  ])('%j', async (location) => {
    await expect(open(location)).rejects.toMatchObject({
      exitCode: 7,
      detail: { where: expect.stringContaining('tensor "w"'), got: JSON.stringify(location) },
    });
  });

  test('no location at all', async () => {
    await expect(readModel(write('m.onnx', external(6, {})))).rejects.toMatchObject({
      exitCode: 5,
    });
  });

  test('a link, as the file or on the way to it', async () => {
    symlinkSync('../secret', join(folder, 'inner/link'));
    await expect(open('link')).rejects.toMatchObject({ exitCode: 7, detail: { got: 'a link' } });
    symlinkSync('..', join(folder, 'inner/up'));
    await expect(open('up/secret')).rejects.toMatchObject({
      exitCode: 7,
      detail: { got: 'a link' },
    });
  });

  test('a folder, a pipe, a file as a folder, a missing file', async () => {
    mkdirSync(join(folder, 'inner/folder'));
    await expect(open('folder')).rejects.toMatchObject({
      exitCode: 7,
      detail: { got: 'a folder' },
    });
    if (spawnSync('mkfifo', [join(folder, 'inner/pipe')]).status === 0)
      await expect(open('pipe')).rejects.toMatchObject({ exitCode: 7, detail: { got: 'a pipe' } });
    await expect(open('m.onnx/x')).rejects.toMatchObject({ exitCode: 7 });
    await expect(open('missing')).rejects.toMatchObject({
      exitCode: 7,
      message: expect.stringContaining('no such file'),
    });
  });

  test('a link put there after the model was opened', async () => {
    writeFileSync(join(folder, 'inner/w'), '123456');
    const model = await open('w');
    rmSync(join(folder, 'inner/w'));
    symlinkSync('../secret', join(folder, 'inner/w'));
    const [tensor] = model.proto.graph!.initializer;
    await expect(readTensorBytes(model, tensor)).rejects.toMatchObject({ exitCode: 7 });
  });

  test('a link put there after the range was checked', async () => {
    symlinkSync('secret', join(folder, 'link'));
    const range = { path: join(folder, 'link'), offset: 0, length: 6, fileSize: 6 };
    await expect(readRange(range)).rejects.toMatchObject({ exitCode: 7 });
  });

  test('a hard link is a file like any other', async () => {
    linkSync(join(folder, 'secret'), join(folder, 'inner/hard'));
    expect((await open('hard')).externalFiles()).toHaveLength(1);
  });
});

describe('a range that lies is refused when the model is opened', () => {
  test.each<[string, number, Record<string, string>]>([
    ['past the end', 4, { offset: '8' }],
    ['an offset past the end', 4, { offset: '11' }],
    ['a length that is not that of the shape', 4, { length: '5' }],
    ['more than the file, by its shape', 2 ** 40, {}],
    ['a negative offset', 4, { offset: '-1' }],
    ['a fraction', 4, { offset: '1.5' }],
    ['no number', 4, { length: '4kB' }],
    ['an overflow', 4, { offset: '99999999999999999999' }],
  ])('%s', async (_, length, entries) => {
    writeFileSync(join(folder, 'w.bin'), '0123456789');
    const path = write('m.onnx', external(length, { location: 'w.bin', ...entries }));
    await expect(readModel(path)).rejects.toMatchObject({
      exitCode: 5,
      detail: { where: expect.stringContaining('"w"') },
    });
  });
});

test('a file cut short after the model was opened', async () => {
  writeFileSync(join(folder, 'w.bin'), '0123456789');
  const model = await readModel(write('m.onnx', external(10, { location: 'w.bin' })));
  truncateSync(join(folder, 'w.bin'), 5);
  const [tensor] = model.proto.graph!.initializer;
  await expect(readTensorBytes(model, tensor)).rejects.toMatchObject({ exitCode: 5 });
});

test('a model that came from no file has no weights beside it', async () => {
  const model = parseModel(modelOf(external(2, { location: 'w.bin' })));
  expect(model.externalFiles()).toEqual([]);
  const [tensor] = model.proto.graph!.initializer;
  await expect(readTensorBytes(model, tensor)).rejects.toMatchObject({ exitCode: 7 });
});

test('3 GiB of weights are opened without being read', async () => {
  writeFileSync(join(folder, 'w.bin'), '');
  truncateSync(join(folder, 'w.bin'), 3 * 2 ** 30);
  const path = write(
    'm.onnx',
    external(3 * 2 ** 30 - 4, { location: 'w.bin' }),
    external(4, { location: 'w.bin', offset: String(3 * 2 ** 30 - 4) }),
  );
  const before = process.memoryUsage().arrayBuffers;
  const model = await readModel(path);
  expect(model.sizeBytes).toBeGreaterThan(3 * 2 ** 30);
  expect([...(await readTensorBytes(model, model.proto.graph!.initializer[1]))]).toEqual([
    0, 0, 0, 0,
  ]);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 24);
});
