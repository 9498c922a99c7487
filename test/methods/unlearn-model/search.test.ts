import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gradients } from '../../../src/autodiff/gradients.js';
import { accuracyOf } from '../../../src/evaluate/forgetting/accuracy.js';
import { remembered } from '../../../src/evaluate/forgetting/remembered.js';
import type { TaskData } from '../../../src/methods/method.js';
import { fullSet } from '../../../src/methods/unlearn/data.js';
import { alphaCandidates } from '../../../src/methods/unlearn/ssd/alpha-grid.js';
import { dampen } from '../../../src/methods/unlearn/ssd/dampen.js';
import { computeImportances } from '../../../src/methods/unlearn/ssd/importance.js';
import { pairImportances } from '../../../src/methods/unlearn/ssd/importance-file.js';
import { ssd } from '../../../src/methods/unlearn/ssd/method.js';
import { assdPercentage, ratioStatistics } from '../../../src/methods/unlearn/ssd/ratios.js';
import { operate } from '../../../src/recipe/operation.js';
import { writeForgettingData } from '../../support/forgetting-data.js';
import { goldenPath } from '../unlearn/golden-ssd.js';
import { dampenInMemory, examples, goldenModel } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-search-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let data: { train: string; test: string };
let forget: TaskData;
let retain: TaskData;
beforeAll(async () => {
  data = await writeForgettingData(folder);
  const all = await examples(await goldenModel('mlp'), data.train);
  const dataset = remembered(all.dataset);
  const isThree = (i: number) => dataset.label!(i) === 3;
  forget = { ...all, dataset, indices: all.indices.filter(isThree) };
  retain = { ...all, dataset, indices: all.indices.filter((i) => !isThree(i)) };
});

const settings = {
  task: 'classification',
  kind: 'fisher-batch',
  loss: 'ce-mean-logits',
  batchSize: 16,
  order: '',
  modelSha256: '',
  progress: () => {},
} as const;

/** Every candidate that the search begins with, tried on a model that is made anew for each. */
async function bruteForce() {
  const model = await goldenModel('mlp');
  const trained = await gradients(model, { loss: 'cross-entropy' });
  const all = fullSet(retain, forget, 'class-sorted', (items) => [...items]);
  const full = await computeImportances(trained, all, settings);
  const own = await computeImportances(trained, forget, settings);
  const pairs = () => pairImportances(own, full);
  const { max, percentiles } = await ratioStatistics(pairs, [
    assdPercentage(forget.indices.length, all.indices.length),
  ]);
  const original = new Map([...trained.values].map(([name, values]) => [name, values.slice()]));
  const outcomes: { alpha: number; forgotten: number; kept: number }[] = [];
  for (const alpha of alphaCandidates(percentiles[0], max)) {
    for await (const { name, ...pair } of pairs()) {
      const { weights } = dampen(original.get(name)!, pair.forget, pair.full, { alpha, lambda: 1 });
      trained.values.get(name)!.set(weights);
    }
    outcomes.push({
      alpha,
      forgotten: await accuracyOf(trained, forget),
      kept: await accuracyOf(trained, retain),
    });
  }
  for (const [name, values] of original) trained.values.get(name)!.set(values);
  const before = await accuracyOf(trained, retain);
  await trained.release();
  return { outcomes, before };
}

describe('the search for alpha', () => {
  test('picks what trying all would pick', async () => {
    const { outcomes, before } = await bruteForce();
    expect(outcomes.length).toBeGreaterThan(5);
    for (const [forgetTarget, drop] of [
      [0.1, 0.03],
      [0.3, 0.03],
      [0.6, 0.005],
    ]) {
      const fit = outcomes.filter(
        ({ forgotten, kept }) => forgotten <= forgetTarget && before - kept <= drop + 1e-9,
      );
      expect(fit.length).toBeGreaterThan(0);
      const best = Math.max(...fit.map(({ alpha }) => alpha));
      const { notes } = await dampenInMemory(
        await goldenModel('mlp'),
        { alpha: 'auto', lambda: 1, batchSize: 16, forgetTarget },
        { forget, retain, maxDrop: { accuracy: drop } },
      );
      const chosen = notes
        .map((note) => /^alpha ([\d.]+), lambda 1 of/.exec(note)?.[1])
        .find(Boolean);
      expect(Number(chosen)).toBeCloseTo(best, 2);
    }
  });

  const search = (more: object) =>
    operate({
      method: ssd,
      model: goldenPath('mlp/mlp.onnx'),
      output: join(folder, 'out.onnx'),
      forget: data.train,
      retain: data.train,
      where: 'label=3',
      eval: data.test,
      parameters: { alpha: 'auto', batchSize: 16 },
      threads: 1,
      ...more,
    });

  test('obeys --max-drop', async () => {
    const { comparison, gates } = await search({
      gates: { maxDrop: ['accuracy=0.05'], minForget: ['accuracy=0.75'] },
    });
    expect(gates.map(({ passed }) => passed)).toEqual([true, true]);
    const { before, after } = comparison!.forgetting!;
    expect(after.forget.accuracy).toBeLessThanOrEqual(0.1); // chance
    expect(before.retain!.accuracy - after.retain!.accuracy).toBeLessThanOrEqual(0.05);
  });

  test('that cannot keep enough writes nothing, and tells what it tried', async () => {
    const files = readdirSync(folder);
    const failure = search({
      output: join(folder, 'none.onnx'),
      parameters: { alpha: 'auto', batchSize: 16, forgetTarget: 0 },
      gates: { maxDrop: ['accuracy=0'] },
    });
    await expect(failure).rejects.toMatchObject({
      exitCode: 5,
      message: 'No alpha forgets enough and keeps enough.',
      detail: {
        expected: expect.stringMatching(/accuracy of at most 0.0 % on the forget set/),
        got: expect.stringMatching(/^alpha [\d.]+ lambda [\d.]+: [\d.]+ % and [\d.]+ %;/),
        hint: expect.stringContaining('--max-drop'),
      },
    });
    expect(readdirSync(folder)).toEqual(files);
  });

  test.each(['regression', 'none'] as const)(
    'is refused for task %s before any work',
    async (task) => {
      const run = dampenInMemory(
        await goldenModel('mlp'),
        { alpha: 'auto' },
        {
          forget: { ...forget, task },
          retain: { ...retain, task },
          progress: () => {
            throw new Error('work was begun');
          },
        },
      );
      await expect(run).rejects.toMatchObject({
        exitCode: 2,
        message: expect.stringContaining('goes by accuracy'),
      });
    },
  );
});

test.each([
  [{ variant: 'assd', alpha: 3 } as const, /finds its own alpha/],
  [{ importance: 'a', saveImportance: 'b' }, /not stored again/],
])('%j is a contradiction', async (given, says) => {
  await expect(dampenInMemory(await goldenModel('mlp'), given, { forget, retain })).rejects.toThrow(
    says,
  );
});

test.each(['0', 'abc', '-1', 'NaN'])('alpha %s is refused in words', (alpha) => {
  expect(ssd.parameters.safeParse({ alpha }).error?.issues[0].message).toBe(
    'a number above 0, or auto',
  );
});
