import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, inflateRawSync } from 'node:zlib';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { type Dataset, openDataset, type Task } from '../../src/data/index.js';
import { compareModels, gateInput } from '../../src/evaluate/compare.js';
import { evaluateModels } from '../../src/evaluate/evaluate.js';
import { inspectModel } from '../../src/evaluate/inspect.js';
import { measureSize } from '../../src/evaluate/measure.js';
import { gzippedBytes } from '../../src/evaluate/size.js';
import { modelInputs } from '../../src/graph/interface.js';
import {
  encodeModel,
  type ModelProto,
  makeTensor,
  parseModel,
  readModel,
} from '../../src/onnx/index.js';
import { type Session, withSession } from '../../src/runtime/session.js';
import { inRepository } from '../support/cli.js';
import { floats, graph, ints, model, node, value, weight } from '../support/protos.js';
import { readOriginal, variants } from '../support/variants.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-evaluate-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const write = (name: string, m: ModelProto): string => {
  const path = join(folder, name);
  writeFileSync(path, encodeModel(m));
  return path;
};

const fixture = (name: string) => inRepository(`fixtures/${name}`);
const all = (dataset: Dataset) => Array.from({ length: dataset.length }, (_, i) => i);

async function evaluateOn(modelName: string, card: string, task: Task) {
  const path = fixture(modelName);
  const { proto } = await readModel(path);
  const dataset = await openDataset(fixture(card), modelInputs(proto));
  expect(dataset.task).toBe(task);
  return withSession(path, { threads: 2 }, async (session) => {
    const { metrics, samples } = await evaluateModels(
      [session],
      { kind: 'data', dataset, indices: all(dataset) },
      { task },
    );
    expect(samples).toBe(dataset.length);
    return metrics[0];
  });
}

/** The arrays of an `.npz`, as bytes, without the project's reader. */
function npz(path: string): Record<string, Buffer> {
  const file = readFileSync(path);
  const end = file.lastIndexOf('PK\x05\x06', undefined, 'latin1');
  const arrays: Record<string, Buffer> = {};
  let entry = file.readUInt32LE(end + 16);
  for (let n = file.readUInt16LE(end + 10); n > 0; n--) {
    const [nameLength, extra, comment] = [28, 30, 32].map((at) => file.readUInt16LE(entry + at));
    const name = file.toString('latin1', entry + 46, entry + 46 + nameLength);
    const local = file.readUInt32LE(entry + 42);
    const start = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
    const npy = inflateRawSync(file.subarray(start, start + file.readUInt32LE(entry + 20)));
    arrays[name.replace('.npy', '')] = npy.subarray(10 + npy.readUInt16LE(8));
    entry += 46 + nameLength + extra + comment;
  }
  return arrays;
}

/** Runs a fixture in ONNX Runtime, without the project's sessions. */
async function withRuntime<T>(name: string, use: (session: InferenceSession) => Promise<T>) {
  const session = await InferenceSession.create(fixture(name), { intraOpNumThreads: 2 });
  try {
    return await use(session);
  } finally {
    await session.release();
  }
}

const { exp, log } = Math; // looked up once: jest makes globals slow

function logSumExp(row: Float32Array): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < row.length; i++) if (row[i] > largest) largest = row[i];
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += exp(row[i] - largest);
  return largest + log(sum);
}

describe('the numbers of the fixtures, and those of a plain script', () => {
  test('resnet8: accuracy and loss', async () => {
    const { image, label } = npz(fixture('resnet8/test.npz'));
    let right = 0;
    let loss = 0;
    await withRuntime('resnet8/resnet8.onnx', async (session) => {
      for (let at = 0; at < 2000; at += 100) {
        const pixels = image.subarray(at * 784, (at + 100) * 784);
        const x = Float32Array.from(pixels, (v) => (v / 255 - 0.286) / 0.353);
        const { logits } = await session.run({ image: new Tensor('float32', x, [100, 1, 28, 28]) });
        for (let i = 0; i < 100; i++) {
          const row = (logits.data as Float32Array).subarray(i * 10, (i + 1) * 10);
          if (row.indexOf(Math.max(...row)) === label[at + i]) right++;
          loss += logSumExp(row) - row[label[at + i]];
        }
      }
    });
    const {
      accuracy,
      loss: ours,
      ...rest
    } = await evaluateOn('resnet8/resnet8.onnx', 'resnet8/test.yaml', 'classification');
    expect(accuracy).toBe(0.935);
    expect(right / 2000).toBe(0.935);
    expect(ours).toBeCloseTo(loss / 2000, 6);
    expect(rest).toEqual({}); // no top-5 of ten classes
  });

  test('gpt-moby: perplexity', async () => {
    const { Tokenizer } = await import('@huggingface/tokenizers');
    const tokenizer = new Tokenizer(
      JSON.parse(readFileSync(fixture('gpt-moby/tokenizer.json'), 'utf8')),
      {},
    );
    const ids: number[] = tokenizer.encode(
      readFileSync(fixture('gpt-moby/heldout.txt'), 'utf8'),
    ).ids;
    expect(ids.length).toBe(28_395);
    let loss = 0;
    let predicted = 0;
    await withRuntime('gpt-moby/gpt-moby.onnx', async (session) => {
      for (let at = 0; at + 2 <= ids.length; at += 128) {
        const window = ids.slice(at, at + 128);
        const input = new Tensor('int64', BigInt64Array.from(window, BigInt), [1, window.length]);
        const { logits } = await session.run({ input_ids: input });
        for (let t = 1; t < window.length; t++, predicted++) {
          const row = (logits.data as Float32Array).subarray((t - 1) * 512, t * 512);
          loss += logSumExp(row) - row[window[t]];
        }
      }
    });
    expect(predicted).toBe(28_173);
    const ours = await evaluateOn('gpt-moby/gpt-moby.onnx', 'gpt-moby/heldout.yaml', 'lm');
    expect(ours.loss).toBeCloseTo(loss / predicted, 5);
    expect(ours.perplexity).toBeCloseTo(Math.exp(loss / predicted), 3);
    expect(ours.perplexity).toBeCloseTo(17.803, 2);
  });

  test('mlp-regression: rmse, mae and r2', async () => {
    const { features, label } = npz(fixture('mlp-regression/test.npz'));
    const floatsOf = (bytes: Buffer) => new Float32Array(new Uint8Array(bytes).buffer);
    const targets = floatsOf(label);
    const predictions = await withRuntime('mlp-regression/mlp-regression.onnx', async (session) => {
      const { target } = await session.run({
        features: new Tensor('float32', floatsOf(features), [110, 10]),
      });
      return target.data as Float32Array;
    });
    const mean = targets.reduce((n, t) => n + t, 0) / 110;
    const squares = targets.reduce((n, t, i) => n + (t - predictions[i]) ** 2, 0);
    const ours = await evaluateOn(
      'mlp-regression/mlp-regression.onnx',
      'mlp-regression/test.yaml',
      'regression',
    );
    expect(ours.rmse).toBeCloseTo(Math.sqrt(squares / 110), 5);
    expect(ours.mae).toBeCloseTo(
      targets.reduce((n, t, i) => n + Math.abs(t - predictions[i]), 0) / 110,
      5,
    );
    expect(ours.r2).toBeCloseTo(1 - squares / targets.reduce((n, t) => n + (t - mean) ** 2, 0), 5);
    expect(ours.rmse).toBeCloseTo(0.659, 3);
    expect(ours.r2).toBeCloseTo(0.525, 3);
  });
});

/** y = softmax(x w), with a frozen batch if asked for. */
const classifier = (batch: number | string = 'batch', w = weight('w', [4, 3])): ModelProto =>
  model({
    input: [value('x', [batch, 4])],
    initializer: [w],
    node: [node('MatMul', ['x', 'w'], ['h']), node('Softmax', ['h'], ['y'], { axis: -1 })],
    output: [value('y', [batch, 3])],
  });

/** Seven examples of four features; the class is the feature that is largest, of the first three. */
const examples = (task: Task = 'classification'): Dataset => {
  const rows = [
    [1, 0, 0, 2],
    [0, 1, 0, -1],
    [0, 0, 1, 0],
    [2, 1, 0, 0],
    [0, 3, 1, 1],
    [1, 0, 5, 2],
    [7, 2, 3, 1],
  ];
  return {
    path: 'examples',
    task,
    length: rows.length,
    files: [],
    example: async (i) => ({
      inputs: { x: { dtype: 'float32', dims: [4], data: Float32Array.from(rows[i]) } },
      label: rows[i].indexOf(Math.max(...rows[i].slice(0, 3))),
    }),
  };
};

/** A weight that picks the first three features. */
const picker = () => floats('w', [4, 3], Float32Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0));

describe('evaluateModels', () => {
  const on = (dataset = examples()) => ({ kind: 'data', dataset, indices: all(dataset) }) as const;
  const open = <T>(
    models: ModelProto[],
    use: (sessions: Session[]) => Promise<T>,
    opened: Session[] = [],
  ): Promise<T> => {
    const [first, ...rest] = models;
    if (!first) return use(opened);
    return withSession(encodeModel(first), { threads: 1 }, (session) =>
      open(rest, use, [...opened, session]),
    );
  };

  test('a frozen batch gives what a free one gives', async () => {
    const results = await Promise.all(
      ['batch', 1, 2, 4, 16].map((size) =>
        open([classifier(size, picker())], (sessions) =>
          evaluateModels(sessions, on(), { task: 'classification' }),
        ),
      ),
    );
    for (const { metrics, samples } of results) {
      expect(samples).toBe(7);
      expect(metrics[0].accuracy).toBe(1);
      expect(metrics[0].loss).toBeCloseTo(results[0].metrics[0].loss, 9);
    }
  });

  test('fidelity is to the first model; progress ends at the number of examples', async () => {
    const seen: number[][] = [];
    const { metrics, fidelity } = await open(
      [classifier('n', picker()), classifier(), classifier('n', picker())],
      (sessions) =>
        evaluateModels(sessions, on(), {
          task: 'classification',
          progress: (...step) => seen.push(step),
        }),
    );
    expect(metrics.length).toBe(3);
    expect(fidelity.length).toBe(2);
    expect(fidelity[1]).toMatchObject({ agreement: 1, kl: 0, relativeError: 0 });
    expect(fidelity[0].kl).toBeGreaterThan(0.01);
    expect(seen.at(-1)).toEqual([7, 7]);
  });

  test('without a task there are no metrics, but fidelity', async () => {
    const { metrics, fidelity } = await open([classifier(), classifier()], (sessions) =>
      evaluateModels(sessions, on(), { task: 'none' }),
    );
    expect(metrics).toEqual([{}, {}]);
    expect(fidelity[0].relativeError).toBe(0);
  });

  test('random inputs are seeded', async () => {
    const measure = (seed: number) =>
      open([classifier('n', picker()), classifier()], async (sessions) => {
        const { fidelity } = await evaluateModels(
          sessions,
          { kind: 'random', runs: 3, seed },
          { task: 'none' },
        );
        return fidelity[0].relativeError;
      });
    expect(await measure(1)).toBe(await measure(1));
    expect(await measure(1)).not.toBe(await measure(2));
  });

  test('a classifier with a sequence of maps beside its scores, as scikit-learn exports it', async () => {
    const m = classifier('n', picker());
    m.opsetImport.push({ domain: 'ai.onnx.ml', version: 3 });
    m.graph!.node.push({
      ...node('ZipMap', ['y'], ['maps'], { classlabels_int64s: [0, 1, 2] }),
      domain: 'ai.onnx.ml',
    });
    const map = { mapType: { keyType: 7, valueType: { tensorType: { elemType: 1 } } } };
    m.graph!.output.unshift({ name: 'maps', type: { sequenceType: { elemType: map } } });
    const { metrics } = await open([m], (sessions) =>
      evaluateModels(sessions, on(), { task: 'classification' }),
    );
    expect(metrics[0].accuracy).toBe(1);
  });
});

describe('compareModels', () => {
  const compare = async (
    before: string,
    after: string,
    more: { dataset?: Dataset; task?: Task } = {},
  ) => {
    const original = await readModel(before);
    const { dataset, task = 'classification' } = more;
    const other = await readModel(after);
    return compareModels({ model: original, size: await measureSize(original) }, other, {
      data: dataset && { dataset, indices: all(dataset) },
      task,
      threads: 1,
      seed: 0,
      progress: () => {},
    });
  };

  test('on labelled data', async () => {
    const [a, b] = [write('a.onnx', classifier('n', picker())), write('b.onnx', classifier())];
    const comparison = await compare(a, b, { dataset: examples() });
    expect(comparison.on).toEqual({
      kind: 'labelled',
      path: 'examples',
      samples: 7,
      task: 'classification',
    });
    expect(comparison.metrics?.before.accuracy).toBe(1);
    expect(comparison.metrics?.after.accuracy).toBeLessThan(1);
    expect(comparison.fidelity?.agreement).toBe(comparison.metrics?.after.accuracy);
    expect(comparison.latency?.threads).toBe(1);
    expect(comparison.size.before.bytes).toBe(statSync(a).size);
    const { before, after, bytes, speedup } = gateInput(comparison);
    expect(before).toEqual(comparison.metrics?.before);
    expect(after).toMatchObject({ ...comparison.metrics?.after, ...comparison.fidelity });
    expect(bytes).toEqual({ before: statSync(a).size, after: statSync(b).size });
    expect(speedup).toBeGreaterThan(0);
  });

  test('on unlabelled data, and on none', async () => {
    const a = write('a.onnx', classifier());
    expect(await compare(a, a, { dataset: examples('none'), task: 'none' })).toMatchObject({
      on: { kind: 'unlabelled', samples: 7 },
      fidelity: { relativeError: 0 },
    });
    const random = await compare(a, a);
    expect(random.on).toMatchObject({ kind: 'random', task: 'none' });
    expect(random.metrics).toBeUndefined();
  });

  const custom = () =>
    model({
      input: [value('x', ['n', 4])],
      node: [node('Frobnicate', ['x'], ['y'])],
      output: [value('y', ['n', 4])],
    });

  test('an original that the runtime refuses leaves the sizes, and the reason', async () => {
    const path = write('custom.onnx', custom());
    const comparison = await compare(path, path);
    expect(comparison.on.kind).toBe('nothing');
    expect(comparison.unmeasured).toMatch(/Frobnicate/);
    expect(comparison.latency).toBeUndefined();
  });

  test('a result that the runtime refuses, unlike the original, is an error', async () => {
    const [a, b] = [write('a.onnx', classifier()), write('custom.onnx', custom())];
    await expect(compare(a, b)).rejects.toMatchObject({ exitCode: 5 });
  });

  test('data that does not fit is an error', async () => {
    const path = write(
      'wide.onnx',
      model({
        input: [value('x', ['n', 5])],
        node: [node('Neg', ['x'], ['y'])],
        output: [{ name: 'y' }],
      }),
    );
    await expect(compare(path, path, { dataset: examples() })).rejects.toMatchObject({
      exitCode: 6,
    });
  });
});

describe('size', () => {
  test('is that of the files, and of the files gzipped', async () => {
    const file = join(folder, 'blob');
    writeFileSync(file, Buffer.alloc(300_000, 'abc'));
    const once = await gzippedBytes([file]);
    expect(once).toBe(gzipSync(readFileSync(file), { level: 6 }).length);
    expect(await gzippedBytes([file, file])).toBe(2 * once);
  });

  test('of a file that is gone is an error, not the end of the process', async () => {
    await expect(gzippedBytes([join(folder, 'nothing')])).rejects.toThrow(/ENOENT/);
  });

  test('counts parameters and zeros in weights of every type, and only there', async () => {
    const m = model({
      input: [value('x', [1, 4])],
      initializer: [
        floats('w', [2, 4], Float32Array.of(0, -0, 1, 2, 3, 4, 5, 6)),
        makeTensor({
          name: 'h',
          dtype: 'float16',
          shape: [2],
          bytes: Uint8Array.of(0, 0x80, 1, 0),
        }),
        makeTensor({ name: 'q', dtype: 'int8', shape: [2, 2], bytes: Uint8Array.of(0, 1, 2, 0) }),
        ints('shape', 0, 0),
        makeTensor({ name: 'z', dtype: 'int8', shape: [2], bytes: new Uint8Array(2) }),
      ],
      node: [
        node('If', ['c'], ['y'], { then_branch: graph({ initializer: [weight('inner', [3])] }) }),
        node('Constant', [], ['c'], { value: weight('', [5]) }),
      ],
      output: [],
    });
    expect(await measureSize(parseModel(encodeModel(m)))).toMatchObject({
      parameters: 8 + 2 + 4 + 3 + 5,
      zeros: 2 + 1 + 2,
    });
  });

  test('of a model with external weights counts all files', async () => {
    const many = variants.find(({ name }) => name === 'external in many files')!;
    const m = await readModel(many.write(mkdtempSync(join(folder, 'many-'))));
    const { bytes, gzipBytes } = await measureSize(m);
    const files = [m.path!, ...m.externalFiles()];
    expect(bytes).toBe(files.reduce((n, file) => n + statSync(file).size, 0));
    expect(gzipBytes).toBe(
      files.reduce((n, file) => n + gzipSync(readFileSync(file), { level: 6 }).length, 0),
    );
  });
});

describe('inspectModel', () => {
  test('resnet8', async () => {
    const inspection = await inspectModel(await readModel(fixture('resnet8/resnet8.onnx')));
    expect(inspection).toMatchObject({
      irVersion: 7,
      opsets: { 'ai.onnx': 13 },
      inputs: [{ name: 'image', dtype: 'float32', dims: ['batch', 1, 28, 28] }],
      outputs: [{ name: 'logits', dtype: 'float32', dims: ['batch', 10] }],
      ops: {
        Conv: 9,
        BatchNormalization: 9,
        Relu: 7,
        Add: 3,
        GlobalAveragePool: 1,
        Flatten: 1,
        Gemm: 1,
      },
      nodes: 31,
      functions: 0,
      externalFiles: [],
    });
    expect(inspection.layers.length).toBe(10);
    expect(inspection.layers[0]).toMatchObject({
      name: '/stem/conv/Conv',
      op: 'Conv',
      shape: [16, 9],
      dtype: 'float32',
      zeros: 0,
      isHead: false,
    });
    expect(inspection.size.bytes).toBe(320_844);
  });

  test('functions are counted and looked into, external files named', async () => {
    const inFunction = variants.find(({ name }) => name === 'function with constants')!;
    const inspection = await inspectModel(
      await readModel(inFunction.write(mkdtempSync(join(folder, 'f-')))),
    );
    expect(inspection.functions).toBe(1);
    expect(inspection.layers.length).toBe(10);
    const external = variants.find(({ name }) => name === 'external in one file')!;
    const { externalFiles } = await inspectModel(
      await readModel(external.write(mkdtempSync(join(folder, 'e-')))),
    );
    expect(externalFiles.map((file) => file.split('/').at(-1))).toEqual(['weights.bin']);
  });

  test('zeros of a quantized layer are those of its values', async () => {
    const m = model({
      input: [value('x', ['n', 4])],
      initializer: [
        makeTensor({
          name: 'q',
          dtype: 'uint8',
          shape: [4, 1],
          bytes: Uint8Array.of(0, 128, 128, 255),
        }),
        floats('s', [], Float32Array.of(0.5)),
        makeTensor({ name: 'z', dtype: 'uint8', shape: [], bytes: Uint8Array.of(128) }),
      ],
      node: [node('DequantizeLinear', ['q', 's', 'z'], ['w']), node('MatMul', ['x', 'w'], ['y'])],
      output: [{ name: 'y' }],
    });
    const { layers } = await inspectModel(parseModel(encodeModel(m)));
    expect(layers).toMatchObject([{ zeros: 0.5, dtype: 'uint8' }]);
  });

  test('weights without values, of strange types, and strange op names do not stop it', async () => {
    const m = model({
      input: [value('x', ['n', 4])],
      initializer: [
        { name: 'stripped', dims: [4, 4], dataType: 1 },
        { name: 'unknown', dims: [4, 4], dataType: 99, rawData: new Uint8Array(16) },
        makeTensor({
          name: 'complex',
          dtype: 'complex64',
          shape: [4, 4],
          bytes: new Uint8Array(128),
        }),
      ],
      node: [
        node('MatMul', ['x', 'stripped'], ['a']),
        node('MatMul', ['a', 'unknown'], ['b']),
        node('MatMul', ['b', 'complex'], ['c']),
        node('constructor', ['c'], ['d']),
        node('__proto__', ['d'], ['y']),
      ],
      output: [{ name: 'y' }],
    });
    const { layers, ops } = await inspectModel(parseModel(encodeModel(m)));
    expect(layers.map(({ zeros }) => zeros)).toEqual([undefined, undefined, undefined]);
    expect(Object.entries(ops)).toEqual([
      ['MatMul', 3],
      ['constructor', 1],
      ['__proto__', 1],
    ]);
  });

  test('without reading weights nothing is said of zeros', async () => {
    const { layers, size } = await inspectModel(
      await readModel(fixture('resnet8/resnet8.onnx')),
      false,
    );
    expect(layers[0].zeros).toBeUndefined();
    expect(size.zeros).toBeUndefined();
    expect(size.gzipBytes).toBeUndefined();
  });

  test('the input is not changed', async () => {
    const m = await readModel(fixture('resnet8/resnet8.onnx'));
    await inspectModel(m);
    expect(Buffer.compare(encodeModel(m.proto), encodeModel(readOriginal()))).toBe(0);
    expect(m.edits.size).toBe(0);
  });
});
