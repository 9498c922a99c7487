import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transformFileSync } from '@swc/core';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import {
  allTensors,
  encodeModel,
  type Model,
  makeTensor,
  parseModel,
  readModel,
  readTensorBytes,
  serializeModel,
  type TensorEdit,
  tensorInfo,
  writeModel,
} from '../../src/onnx/index.js';
import { planOutput } from '../../src/onnx/plan.js';
import { realModels, smallModel } from './models.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'resect-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const at = (name: string) => join(folder, name);

/** All values of a model, by place in it. */
async function values(model: Model): Promise<Buffer[]> {
  const found: Buffer[] = [];
  for (const { tensor } of allTensors(model.proto))
    if (tensorInfo(tensor).dtype !== 'string')
      found.push(Buffer.from(await readTensorBytes(model, tensor)));
  return found;
}

/** The model with all that says where values are taken out, to compare the rest. */
function withoutValues(model: Model) {
  const { proto } = parseModel(encodeModel(model.proto));
  for (const { tensor } of allTensors(proto)) {
    for (const key of ['rawData', 'externalData', 'dataLocation', 'int64Data'] as const)
      delete tensor[key];
  }
  return JSON.stringify(proto, (_, value) => (typeof value === 'bigint' ? `${value}n` : value));
}

/** A model with `sizes` of uint8 initializers, whose bytes count up from their number. */
function modelWith(...sizes: number[]): Model {
  const initializer = sizes.map((size, n) =>
    makeTensor({
      name: `w${n}`,
      dtype: 'uint8',
      shape: [size],
      bytes: new Uint8Array(size).map((_, i) => i + n),
    }),
  );
  const graph = { node: [], initializer, input: [], output: [], valueInfo: [] };
  return parseModel(encodeModel({ irVersion: 10, opsetImport: [{ version: 21 }], graph }));
}

test.each(realModels)('%s is written byte by byte', async (_, path) => {
  const result = await writeModel(await readModel(path), at('out.onnx'));
  expect(result).toEqual({ bytes: statSync(path).size, files: [at('out.onnx')] });
  expect(readFileSync(at('out.onnx')).equals(readFileSync(path))).toBe(true);
  expect(readdirSync(folder)).toEqual(['out.onnx']);
});

test.each(realModels)('%s moves its weights out and back in', async (_, path) => {
  const original = await readModel(path);
  const { files, bytes } = (await writeModel(original, at('out.onnx'), { externalData: true }))!;
  expect(bytes).toBe(files.reduce((sum, file) => sum + statSync(file).size, 0));
  const moved = await readModel(at('out.onnx'));
  expect(moved.externalFiles()).toEqual(files.slice(1));
  expect(moved.sizeBytes).toBe(bytes);
  expect(withoutValues(moved)).toBe(withoutValues(original));
  expect(Buffer.concat(await values(moved)).equals(Buffer.concat(await values(original)))).toBe(
    true,
  );

  await writeModel(moved, at('back.onnx'));
  expect(readFileSync(at('back.onnx')).equals(readFileSync(path))).toBe(true);
});

test('the runtime finds weights that were moved out of initializers and Constant nodes', async () => {
  for (const name of ['resnet8.onnx', basename(smallModel)]) {
    const [, path] = realModels.find(([one]) => one.endsWith(name))!;
    await writeModel(await readModel(path), at(name), { externalData: true });
    const outputs = [path, at(name)].map(async (file) => {
      const session = await InferenceSession.create(file);
      const [input] = session.inputNames;
      const shape = name === 'resnet8.onnx' ? [1, 1, 28, 28] : [1, 3, 48, 192];
      const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) =>
        Math.sin(i),
      );
      const result = await session.run({ [input]: new Tensor('float32', values, shape) });
      await session.release();
      return Object.values(result)[0].data;
    });
    const [before, after] = await Promise.all(outputs);
    expect(after).toEqual(before);
  }
});

test('external tensors are aligned, small ones stay inside, shared ranges stay shared', async () => {
  const model = modelWith(1023, 1024, 5000, 2 ** 20, 1500);
  await writeModel(model, at('a.onnx'), { externalData: true });
  const a = await readModel(at('a.onnx'));
  const entries = (of: Model) =>
    of.proto.graph!.initializer.map((tensor) =>
      Object.fromEntries((tensor.externalData ?? []).map(({ key, value }) => [key, value])),
    );
  const location = 'a.onnx.data';
  expect(entries(a)).toEqual([
    {},
    { location, offset: '0', length: '1024' },
    { location, offset: '4096', length: '5000' },
    { location, offset: '65536', length: '1048576' },
    { location, offset: String(65536 + 2 ** 20), length: '1500' },
  ]);
  const { initializer } = a.proto.graph!;
  initializer.push({ ...initializer[2], name: 'tied' });
  await writeModel(a, at('b.onnx'), { externalData: true });
  const b = entries(await readModel(at('b.onnx')));
  expect(b[5]).toEqual(b[2]);
  expect(statSync(at('b.onnx.data')).size).toBe(statSync(at('a.onnx.data')).size);
});

test.each([false, true])('edits are written (external data: %s)', async (externalData) => {
  await writeModel(modelWith(10, 3000), at('in.onnx'), { externalData });
  const model = await readModel(at('in.onnx'));
  for (const tensor of model.proto.graph!.initializer)
    model.edits.set(tensor, async (raw) => new Uint8Array(raw).reverse());
  await writeModel(model, at('out.onnx'), { externalData });
  const written = await values(await readModel(at('out.onnx')));
  const before = await values(modelWith(10, 3000));
  expect(written).toEqual(before.map((bytes) => Buffer.from(bytes).reverse()));
  expect(Buffer.concat(await values(parseModel(await serializeModel(model))))).toEqual(
    Buffer.concat(written),
  );
});

test('edits by parts make what they make at once', async () => {
  const model = modelWith(1, 100);
  // Two blocks and a bit, without a function call for each byte.
  const bytes = Buffer.alloc(2 ** 24 + 5, 'parts');
  model.proto.graph!.initializer[0] = makeTensor({
    name: 'w0',
    dtype: 'uint8',
    shape: [bytes.length],
    bytes,
  });
  const offsets: number[][] = [];
  for (const tensor of model.proto.graph!.initializer) {
    const seen: number[] = [];
    offsets.push(seen);
    const edit: TensorEdit = (raw) => Buffer.alloc(raw.length, 7);
    edit.part = async (raw, offset) => {
      seen.push(offset);
      return Buffer.alloc(raw.length, 7);
    };
    model.edits.set(tensor, edit);
  }
  await writeModel(model, at('out.onnx'), { externalData: true });
  expect(offsets).toEqual([[0, 2 ** 23, 2 ** 24], [0]]);
  const [written, want] = [await values(await readModel(at('out.onnx'))), await values(model)];
  expect(written.map((each, i) => Buffer.compare(each, want[i]))).toEqual([0, 0]);
});

test('a model of more than 2 GiB goes out with external data, unless that is refused', async () => {
  await writeModel(modelWith(2000, 2000), at('in.onnx'), { externalData: true });
  truncateSync(at('in.onnx.data'), 3 * 2 ** 30);
  const model = await readModel(at('in.onnx'));
  for (const tensor of model.proto.graph!.initializer) {
    tensor.dims = [1_500_000_000];
    tensor.externalData = [
      { key: 'location', value: 'in.onnx.data' },
      { key: 'offset', value: tensor.name === 'w1' ? '1500000000' : '0' },
    ];
  }
  const plan = await planOutput(model, 'out.onnx.data', undefined);
  expect(plan.weights.map(({ bytes }) => bytes.length)).toEqual([1_500_000_000, 1_500_000_000]);
  expect(plan.size).toBeLessThan(1000);
  const refused = { exitCode: 5, detail: { hint: expect.stringContaining('external') } };
  await expect(writeModel(model, at('out.onnx'), { externalData: false })).rejects.toMatchObject(
    refused,
  );
  await expect(serializeModel(model)).rejects.toMatchObject(refused);
  expect(readdirSync(folder).sort()).toEqual(['in.onnx', 'in.onnx.data']);
});

describe('what is there already', () => {
  let model: Model;
  beforeEach(async () => {
    await writeModel(modelWith(2000), at('in.onnx'), { externalData: true });
    model = await readModel(at('in.onnx'));
  });

  test.each(['out.onnx', 'out.onnx.data'])(
    '%s is kept without force, replaced with it',
    async (name) => {
      writeFileSync(at(name), 'precious');
      const write = (force: boolean) =>
        writeModel(model, at('out.onnx'), { force, externalData: true });
      await expect(write(false)).rejects.toMatchObject({
        exitCode: 7,
        detail: { where: at(name) },
      });
      expect(readFileSync(at(name), 'utf8')).toBe('precious');
      expect(readdirSync(folder).sort()).toEqual(['in.onnx', 'in.onnx.data', name].sort());
      await write(true);
      expect(await values(await readModel(at('out.onnx')))).toEqual(await values(model));
    },
  );

  test.each(['in.onnx', 'in.onnx.data', 'link.onnx', 'hard.onnx', 'folder/../in.onnx'])(
    'the input is never written to, as %s',
    async (name) => {
      mkdirSync(at('folder'));
      symlinkSync('in.onnx', at('link.onnx'));
      linkSync(at('in.onnx.data'), at('hard.onnx'));
      const before = await model.hash();
      for (const externalData of [true, false])
        await expect(
          writeModel(model, join(folder, name), { force: true, externalData }),
        ).rejects.toMatchObject({
          exitCode: 7,
          message: expect.stringContaining('input'),
        });
      expect(await model.hash()).toBe(before);
    },
  );

  test('weights are not written over the input’s own', async () => {
    cpSync(at('in.onnx'), at('other.onnx'));
    linkSync(at('in.onnx.data'), at('out.onnx.data'));
    await expect(
      writeModel(model, at('out.onnx'), { force: true, externalData: true }),
    ).rejects.toMatchObject({ exitCode: 7, message: expect.stringContaining('input') });
  });

  test('a folder, a device and a missing folder are no outputs', async () => {
    mkdirSync(at('out.onnx'));
    await expect(writeModel(model, at('out.onnx'), { force: true })).rejects.toMatchObject({
      exitCode: 7,
    });
    await expect(writeModel(model, '/dev/null', { force: true })).rejects.toMatchObject({
      exitCode: 7,
    });
    await expect(writeModel(model, at('none/out.onnx'))).rejects.toMatchObject({
      exitCode: 7,
      message: expect.stringContaining('no such file or folder'),
    });
    expect(existsSync(at('none'))).toBe(false);
  });
});

describe('nothing is left', () => {
  test.each([true, false])(
    'of a write that fails half way (external data: %s)',
    async (externalData) => {
      const model = modelWith(5000, 5000);
      model.edits.set(model.proto.graph!.initializer[1], () => {
        expect(readdirSync(folder)).toHaveLength(1);
        throw new Error('no more');
      });
      await expect(writeModel(model, at('out.onnx'), { externalData })).rejects.toThrow('no more');
      expect(readdirSync(folder)).toEqual([]);
      expect(process.listenerCount('SIGINT')).toBe(0);
    },
  );

  test.each([true, false])(
    'when the caller’s check refuses the result (external data: %s)',
    async (externalData) => {
      const model = modelWith(5000);
      const seen: number[] = [];
      const write = (verdict: boolean) =>
        writeModel(model, at('out.onnx'), {
          externalData,
          check: async (staged) => {
            const [bytes] = await values(await readModel(staged));
            seen.push(bytes.length);
            return verdict;
          },
        });
      expect(await write(false)).toBeUndefined();
      expect(readdirSync(folder)).toEqual([]);
      expect((await write(true))?.files).toHaveLength(externalData ? 2 : 1);
      expect(seen).toEqual([5000, 5000]);
      expect(readdirSync(folder)).toHaveLength(externalData ? 2 : 1);
    },
  );

  test('of the weights when the model cannot take its name', async () => {
    const model = modelWith(5000);
    model.edits.set(model.proto.graph!.initializer[0], (raw) => {
      mkdirSync(at('out.onnx'));
      return raw;
    });
    await expect(writeModel(model, at('out.onnx'), { externalData: true })).rejects.toMatchObject({
      exitCode: 7,
    });
    expect(readdirSync(folder)).toEqual(['out.onnx']);
  });

  test.each(['SIGINT', 'SIGTERM'] as const)('after %s', async (signal) => {
    const writer = await slowWriter();
    expect(readdirSync(at('out'))).toHaveLength(1);
    writer.kill(signal);
    expect(await once(writer, 'exit')).toEqual([null, signal]);
    expect(readdirSync(at('out'))).toEqual([]);
  });

  test('after process.exit in a signal handler of the program', async () => {
    const writer = await slowWriter("process.on('SIGINT', () => process.exit(130));");
    writer.kill('SIGINT');
    expect(await once(writer, 'exit')).toEqual([130, null]);
    expect(readdirSync(at('out'))).toEqual([]);
  });
});

/** A process that is in the middle of a write to the folder `out`. */
async function slowWriter(setup = ''): Promise<ChildProcess> {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  for (const name of readdirSync(join(root, 'src/onnx'))
    .map((file) => `onnx/${file}`)
    .concat('errors.ts')) {
    const target = at(`src/${name.replace(/\.ts$/, '.js')}`);
    mkdirSync(dirname(target), { recursive: true });
    const options = {
      jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
      module: { type: 'es6' },
    } as const;
    writeFileSync(
      target,
      transformFileSync(join(root, 'src', name), { ...options, swcrc: false, configFile: false })
        .code,
    );
  }
  symlinkSync(join(root, 'node_modules'), at('node_modules'));
  writeFileSync(at('package.json'), '{"type": "module"}');
  mkdirSync(at('out'));
  writeFileSync(
    at('main.js'),
    `import { readModel, writeModel } from './src/onnx/index.js';
    ${setup}
    const model = await readModel(${JSON.stringify(smallModel)});
    model.edits.set(model.proto.graph.node.flatMap((n) => n.attribute).find((a) => a.t).t, async () => {
      console.log('writing');
      return new Promise(() => setTimeout(() => {}, 60_000));
    });
    await writeModel(model, 'out/${basename(smallModel)}', { externalData: true });`,
  );
  const child = spawn(process.execPath, ['main.js'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}
