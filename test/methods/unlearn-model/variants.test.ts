import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gradients } from '../../../src/autodiff/gradients.js';
import type { TaskData } from '../../../src/methods/method.js';
import { finetune } from '../../../src/methods/unlearn/baselines/baselines.js';
import { computeImportances } from '../../../src/methods/unlearn/ssd/importance.js';
import { meanImportances } from '../../../src/methods/unlearn/ssd/importance-file.js';
import {
  encodeModel,
  type Model,
  type ModelProto,
  parseModel,
  readModel,
  writeModel,
} from '../../../src/onnx/index.js';
import { resnet8 } from '../../support/fixtures.js';
import { floats, model, node, value } from '../../support/protos.js';
import { distance, floatTensor, type Output, runOnce } from '../../support/run.js';
import { readOriginal, reference, type Variant, variants } from '../../support/variants.js';
import { around, changedOf, dampenInMemory, differing, examples, tensorBytes } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-unlearn-variants-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const newFolder = () => mkdtempSync(join(folder, 'model-'));

/** 16 images of class 3, and 40 of others. */
async function sets(of: Model): Promise<{ forget: TaskData; retain: TaskData }> {
  const all = await examples(of, resnet8.train);
  const { label } = all.dataset;
  const some = all.indices.filter((i) => i % 10 === 0);
  return {
    forget: { ...all, indices: all.indices.filter((i) => label!(i) === 3).slice(0, 16) },
    retain: { ...all, indices: some.filter((i) => label!(i) !== 3).slice(0, 40) },
  };
}
const given = { alpha: 3, batchSize: 16, order: 'retain-then-forget' } as const;

const images = floatTensor(
  [4, 1, 28, 28],
  Float32Array.from({ length: 4 * 784 }, (_, i) => Math.sin(i)),
);
async function logits(of: Model, batch = 4): Promise<Output> {
  const written = join(newFolder(), 'written.onnx');
  await writeModel(of, written, {});
  const part = floatTensor(
    [batch, 1, 28, 28],
    (images.data as Float32Array).subarray(0, batch * 784),
  );
  return (await runOnce(written, { image: part })).logits;
}

/** Dampens, and checks that no other element of any tensor has changed. */
async function dampened(of: Model, width: (name: string) => number = () => 4) {
  const before = await tensorBytes(of);
  const { layers } = await dampenInMemory(of, given, await sets(of));
  const changed = changedOf(layers);
  const total = Object.values(changed).reduce((a, b) => a + b, 0);
  const after = await tensorBytes(of);
  let found = 0;
  for (const [i, { name, bytes }] of before.entries()) {
    const own = differing(
      bytes,
      after[i].bytes,
      bytes.length % width(name) === 0 ? width(name) : 1,
    );
    if (name && changed[name] !== undefined)
      expect({ name, own }).toEqual({ name, own: changed[name] });
    found += own;
  }
  expect(found).toBe(total);
  expect(total).toBeGreaterThan(0);
  return { total, logits: await logits(of), layers };
}

const expected = new Map<unknown, Promise<{ total: number; logits: Output }>>();
function expectedFor({ rounds }: Variant) {
  const key = rounds ?? 'as it is';
  const known = expected.get(key) ?? dampened(parseModel(encodeModel(reference({ rounds }))));
  expected.set(key, known);
  return known;
}

const plain = variants.filter(({ name }) => !/int8/.test(name));
test.each(plain)('resnet8: $name', async (variant) => {
  const own = await readModel(variant.write(newFolder()));
  const wide = (name: string) => (variant.name === 'half model' || /\.half$/.test(name) ? 2 : 4);
  const made = await dampened(own, wide);
  const wanted = await expectedFor(variant);
  if (variant.sameArithmetic)
    expect(Math.abs(made.total - wanted.total)).toBeLessThan(0.01 * wanted.total + 3);
  expect(distance(wanted.logits, made.logits)).toBeLessThan(variant.sameArithmetic ? 0.02 : 0.3);
});

test.each(variants.filter(({ name }) => /int8/.test(name)))(
  'resnet8: $name is refused',
  async (variant) => {
    const own = await readModel(variant.write(newFolder()));
    const refusal = {
      exitCode: 5,
      message: 'The weights of the model are quantized.',
      detail: { hint: expect.stringContaining('before it was quantized') },
    };
    await expect(dampenInMemory(own, given, await sets(own))).rejects.toMatchObject(refusal);
    const training = finetune.parameters.parse({});
    await expect(finetune.apply(own, training, around(await sets(own)))).rejects.toMatchObject(
      refusal,
    );
    expect(own.edits.size).toBe(0);
  },
);

describe('a batch that is frozen', () => {
  const frozen = (batch: number): ModelProto => {
    const proto = readOriginal();
    const ports = [...proto.graph.input, ...proto.graph.output];
    for (const { type } of ports) type!.tensorType!.shape!.dim[0] = { dimValue: batch };
    proto.graph.valueInfo = [];
    return proto;
  };
  const options = {
    task: 'classification',
    kind: 'fisher-batch',
    loss: 'ce-mean-logits',
    order: 'as-given',
    modelSha256: '',
    progress: () => {},
  } as const;

  async function importances(proto: ModelProto, batchSize: number) {
    const own = parseModel(encodeModel(proto));
    const trained = await gradients(own, { loss: 'cross-entropy' });
    const { retain } = await sets(own);
    const some = { ...retain, indices: retain.indices.slice(0, 11) };
    const store = await computeImportances(trained, some, { ...options, batchSize });
    const values = new Map<string, ArrayLike<number>>();
    for (const { name } of store.parameters) values.set(name, await meanImportances(store, name));
    await trained.release();
    return { metadata: store.metadata, values };
  }

  test.each([
    { frozenAt: 1, batchSize: 4 },
    { frozenAt: 4, batchSize: 4 },
    { frozenAt: 4, batchSize: 6 },
    { frozenAt: 4, batchSize: 1 },
    { frozenAt: 2, batchSize: 1 },
  ])(
    'at $frozenAt gives the importances of batches of $batchSize all the same',
    async ({ frozenAt, batchSize }) => {
      const free = await importances(readOriginal(), batchSize);
      const own = await importances(frozen(frozenAt), batchSize);
      expect(own.metadata).toEqual(free.metadata);
      for (const [name, values] of free.values) {
        const others = own.values.get(name)!;
        const scale = Math.max(...Array.from(values));
        const off = Math.max(...Array.from(values, (v, i) => Math.abs(v - others[i])));
        expect(off).toBeLessThanOrEqual(2e-3 * scale);
      }
    },
  );

  test('is dampened', async () => {
    const own = parseModel(encodeModel(frozen(1)));
    const { layers } = await dampenInMemory(own, given, await sets(own));
    const total = Object.values(changedOf(layers)).reduce((a, b) => a + b, 0);
    const free = await expectedFor(plain.find(({ rounds }) => !rounds)!);
    expect(Math.abs(total - free.total)).toBeLessThan(0.01 * free.total + 3);
  });
});

describe('a parameter that two layers share', () => {
  const values = Float32Array.from({ length: 16 }, (_, i) => Math.sin(i + 1));
  const network = (second: string): ModelProto =>
    model({
      node: [
        node('MatMul', ['x', 'w'], ['h'], {}, { name: 'first' }),
        node('Tanh', ['h'], ['t']),
        node('MatMul', ['t', second], ['y'], {}, { name: 'second' }),
      ],
      initializer: [...new Set(['w', second])].map((name) => floats(name, [4, 4], values)),
      input: [value('x', ['batch', 4])],
      output: [value('y', ['batch', 4])],
    });
  const feeds = {
    x: {
      dtype: 'float32' as const,
      dims: [3, 4],
      data: Float32Array.from({ length: 12 }, (_, i) => Math.cos(i)),
    },
  };
  const labels = [0, 3, 2];
  const target = {
    target: { dtype: 'int64' as const, dims: [3], data: BigInt64Array.from(labels, BigInt) },
  };
  const data = {
    dataset: {
      path: '',
      task: 'classification' as const,
      length: 3,
      files: [],
      example: async (i: number) => ({
        inputs: { x: { ...feeds.x, dims: [4], data: feeds.x.data.subarray(4 * i, 4 * i + 4) } },
        label: labels[i],
      }),
      label: (i: number) => labels[i],
    },
    indices: [0, 1, 2],
  };

  test.each([3, 1])(
    'its gradients are added before they are squared, in batches of %i',
    async (batchSize) => {
      const apart = await gradients(parseModel(encodeModel(network('v'))), {
        loss: 'cross-entropy',
      });
      const shared = await gradients(parseModel(encodeModel(network('w'))), {
        loss: 'cross-entropy',
      });
      const store = await computeImportances(shared, data, {
        task: 'classification',
        kind: 'fisher-batch',
        loss: 'ce-mean-logits',
        batchSize,
        order: 'as-given',
        modelSha256: '',
        progress: () => {},
      });
      const sums = new Float64Array(16);
      for (let at = 0; at < 3; at += batchSize) {
        const { gradients: g } = await apart.run(
          {
            x: {
              ...feeds.x,
              dims: [batchSize, 4],
              data: feeds.x.data.subarray(4 * at, 4 * (at + batchSize)),
            },
          },
          {
            target: {
              ...target.target,
              dims: [batchSize],
              data: target.target.data.subarray(at, at + batchSize),
            },
          },
        );
        for (let i = 0; i < 16; i++) sums[i] += (g.get('w')![i] + g.get('v')![i]) ** 2;
      }
      const own = await store.sums('w');
      for (const [i, sum] of sums.entries()) expect(own[i]).toBeCloseTo(sum, 6);
      await apart.release();
      await shared.release();
    },
  );
});

test('an embedding and a head that an exporter has untied are told of', async () => {
  const content = Float32Array.from({ length: 20 * 16 }, (_, i) => Math.sin(i + 1));
  const turned = Float32Array.from(content, (_, i) => content[(i % 20) * 16 + Math.floor(i / 20)]);
  const proto = model({
    node: [
      node('MatMul', ['x', 'embedding'], ['h'], {}, { name: 'embed' }),
      node('MatMul', ['h', 'head'], ['y'], {}, { name: 'out' }),
    ],
    initializer: [floats('embedding', [20, 16], content), floats('head', [16, 20], turned)],
    input: [value('x', ['batch', 20])],
    output: [value('y', ['batch', 20])],
  });
  const rows = (offset: number): TaskData => ({
    dataset: {
      path: `rows ${offset}`,
      task: 'classification',
      length: 8,
      files: [],
      example: async (i) => ({
        inputs: {
          x: {
            dtype: 'float32',
            dims: [20],
            data: Float32Array.from({ length: 20 }, (_, j) => Math.sin(i * j + offset)),
          },
        },
        label: (i + offset) % 20,
      }),
      label: (i) => (i + offset) % 20,
    },
    indices: [0, 1, 2, 3, 4, 5, 6, 7],
    task: 'classification',
  });
  const own = parseModel(encodeModel(proto));
  const { notes } = await dampenInMemory(
    own,
    { alpha: 1.2, batchSize: 4 },
    { forget: rows(0), retain: rows(9) },
  );
  expect(notes).toContainEqual(
    expect.stringContaining('"embedding" and "head" hold the same values'),
  );
});
