import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gradients } from '../../../src/autodiff/gradients.js';
import { accuracyOf } from '../../../src/evaluate/forgetting/accuracy.js';
import { remembered } from '../../../src/evaluate/forgetting/remembered.js';
import type { TaskData } from '../../../src/methods/method.js';
import {
  amnesiac,
  finetune,
  gradientAscent,
} from '../../../src/methods/unlearn/baselines/baselines.js';
import { type Model, parseModel, readModel, serializeModel } from '../../../src/onnx/index.js';
import { inRepository } from '../../support/cli.js';
import { writeForgettingData } from '../../support/forgetting-data.js';
import { around, changedOf, examples, goldenModel, tensorBytes } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-baselines-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let forget: TaskData;
let retain: TaskData;
beforeAll(async () => {
  const { train } = await writeForgettingData(folder);
  const all = await examples(await goldenModel('cnn'), train);
  const dataset = remembered(all.dataset);
  const isThree = (i: number) => dataset.label!(i) === 3;
  forget = { ...all, dataset, indices: all.indices.filter(isThree) };
  retain = { ...all, dataset, indices: all.indices.filter((i) => !isThree(i)) };
});

const methods = { finetune, amnesiac, 'gradient-ascent': gradientAscent };
type Given = Parameters<typeof finetune.parameters.parse>[0];
/** More eager than the defaults, as there is less data. */
const eager: Record<keyof typeof methods, Given> = {
  finetune: { learningRate: 0.05, batchSize: 16, epochs: 3 },
  amnesiac: { learningRate: 2e-3, batchSize: 32 },
  'gradient-ascent': { learningRate: 3e-3, batchSize: 16, epochs: 2 },
};
const names = Object.keys(methods) as (keyof typeof methods)[];

async function accuracy(model: Model, set: TaskData): Promise<number> {
  const trained = await gradients(model, { loss: 'cross-entropy' });
  const share = await accuracyOf(trained, set);
  await trained.release();
  return share;
}

describe.each(names)('%s', (name) => {
  const method = methods[name];
  async function treated(selects = (_: string) => true, seed = 0) {
    const model = await goldenModel('cnn');
    const given = method.parameters.parse(eager[name]);
    const result = await method.apply(model, given, around({ forget, retain, selects, seed }));
    return { model, ...result };
  }

  test('forgets, and keeps', async () => {
    const { model, notes } = await treated();
    // Edits are in memory: a copy with them is what is measured.
    const made = parseModel(await serializeModel(model));
    const before = await goldenModel('cnn');
    expect(await accuracy(made, forget)).toBeLessThan((await accuracy(before, forget)) - 0.02);
    expect(await accuracy(made, retain)).toBeGreaterThan(0.6);
    expect(notes).toContainEqual(expect.stringMatching(/^\d+ steps, loss .* -> /));
  });

  test('is the same, bit for bit, with the same seed', async () => {
    const [a, b, c] = [await treated(), await treated(), await treated(undefined, 1)];
    const [x, y, z] = [
      await tensorBytes(a.model),
      await tensorBytes(b.model),
      await tensorBytes(c.model),
    ];
    expect(x.every(({ bytes }, i) => bytes.equals(y[i].bytes))).toBe(true);
    expect(x.every(({ bytes }, i) => bytes.equals(z[i].bytes))).toBe(false);
  });

  test('changes what it may, and nothing else', async () => {
    const { model, layers } = await treated((layer) => layer.startsWith('fc'));
    const before = await tensorBytes(await goldenModel('cnn'));
    const after = await tensorBytes(model);
    const changed = changedOf(layers);
    expect(Object.keys(changed).length).toBeGreaterThan(0);
    for (const [i, tensor] of before.entries())
      expect({ ...tensor, same: tensor.bytes.equals(after[i].bytes) }).toEqual({
        ...tensor,
        same: !tensor.name.startsWith('fc'),
      });
    for (const { name: layer, status } of layers)
      expect(status).toBe(layer.startsWith('fc') ? 'changed' : 'skipped');
  });

  test('that diverges says so', async () => {
    const model = await goldenModel('cnn');
    const given = method.parameters.parse({
      optimizer: 'sgd',
      learningRate: 1e30,
      batchSize: 64,
      epochs: 2,
    });
    await expect(method.apply(model, given, around({ forget, retain }))).rejects.toMatchObject({
      exitCode: 5,
      message: 'Training diverged.',
      detail: { hint: expect.stringContaining('--learning-rate') },
    });
    expect(model.edits.size).toBe(0);
  });

  test('that diverges in its last step says so', async () => {
    const model = await goldenModel('cnn');
    const given = method.parameters.parse({
      optimizer: 'sgd',
      learningRate: 1e38,
      batchSize: 2000,
      epochs: 1,
    });
    const run = method.apply(model, given, around({ forget, retain }));
    await expect(run).rejects.toMatchObject({ message: 'Training diverged.' });
    expect(model.edits.size).toBe(0);
  });

  test('with nothing to train is refused', async () => {
    const model = await goldenModel('cnn');
    const given = method.parameters.parse({});
    const run = method.apply(model, given, around({ forget, retain, selects: () => false }));
    await expect(run).rejects.toMatchObject({
      exitCode: 5,
      detail: { hint: expect.stringContaining('--include') },
    });
  });
});

test('amnesia of a regression: targets like all others, but not their own', async () => {
  const model = await readModel(inRepository('fixtures/mlp-regression/mlp-regression.onnx'));
  const all = await examples(model, inRepository('fixtures/mlp-regression/train.yaml'));
  const sets = {
    forget: { ...all, indices: all.indices.slice(0, 20) },
    retain: { ...all, indices: all.indices.slice(20, 120) },
  };
  const given = amnesiac.parameters.parse({ epochs: 1, batchSize: 16 });
  const { layers } = await amnesiac.apply(model, given, around(sets));
  expect(layers.some(({ status }) => status === 'changed')).toBe(true);
});
