import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ForgettingMeasures } from '../../../src/evaluate/forgetting/measure.js';
import { ssd } from '../../../src/methods/unlearn/ssd/method.js';
import { operate } from '../../../src/recipe/operation.js';
import { inRepository } from '../../support/cli.js';
import { writeForgettingData } from '../../support/forgetting-data.js';
import { golden, goldenPath } from '../unlearn/golden-ssd.js';
import { changedOf } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-unlearn-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const train = goldenPath('data/train.yaml');
const classThree = {
  forget: train,
  retain: train,
  indices: goldenPath('data/idx_class3_forget.npy'),
  eval: goldenPath('data/test.yaml'),
  threads: 1,
};

/** The bands of the golden file. */
function expectMeasures(
  own: ForgettingMeasures,
  expected: (typeof golden.cases)[number]['before'],
) {
  const near = (a: number | undefined, b: number, band: number) =>
    expect(Math.abs((a ?? Number.NaN) - b)).toBeLessThanOrEqual(band);
  near(own.forget.accuracy, expected.forget_train_acc, 0.005);
  near(own.retain?.accuracy, expected.retain_train_acc, 0.005);
  near(own.test?.accuracy, expected.test_acc, 0.005);
  near(own.testForget?.accuracy, expected.test_forget_class_acc, 0.005);
  near(own.testRetain?.accuracy, expected.test_retain_class_acc, 0.005);
  near(own.membership?.forgetRate, expected.mia, 0.02);
}

describe('measured as the authors measure', () => {
  const record = (name: string) => golden.cases.find(({ id }) => id === `${name}_class3_b64`)!;
  test.each([
    { name: 'mlp', file: 'mlp/mlp.onnx' },
    { name: 'cnn', file: 'cnn/cnn.onnx' },
    { name: 'cnn', file: 'cnn/cnn_folded.onnx' },
  ])('$file', async ({ name, file }) => {
    const model = goldenPath(file);
    const output = join(folder, file.replace('/', '-'));
    const { comparison, layers } = await operate({
      ...classThree,
      method: ssd,
      parameters: { alpha: 5 },
      model,
      output,
      reference: model,
    });
    const { before, after, reference, classes } = comparison!.forgetting!;
    const { before: expected, dampened } = record(name);
    const outcome = dampened.find(({ alpha, lambda }) => alpha === 5 && lambda === 1)!;
    expectMeasures(before, expected);
    expectMeasures(after, outcome.after);
    const counted = Object.values(changedOf(layers)).reduce((a, b) => a + b, 0);
    expect(Math.abs(counted - outcome.n_selected)).toBeLessThanOrEqual(5);

    expect(classes).toEqual([3]);
    expect(after.classes?.['3']).toBe(after.testForget?.accuracy);
    // The test set has as many examples of each class.
    const shares = Object.values(after.classes!);
    expect(shares.reduce((a, b) => a + b, 0) / 10).toBeCloseTo(after.test!.accuracy, 9);
    expect(reference).toBeDefined();
    expect(before).toMatchObject({ tugOfWar: 1, activationDistance: 0, klToReference: 0 });
    expect(after.tugOfWar).toBeLessThan(0.1);
    expect(after.zrf).toBeGreaterThan(before.zrf!);
    for (const { zrf } of [before, after]) {
      expect(zrf).toBeGreaterThan(1 - Math.LN2);
      expect(zrf).toBeLessThanOrEqual(1);
    }
    rmSync(output);
  });
});

test('a regression is told of in its own words', async () => {
  const output = join(folder, 'regression.onnx');
  const data = inRepository('fixtures/mlp-regression/train.yaml');
  const model = inRepository('fixtures/mlp-regression/mlp-regression.onnx');
  const indices = join(folder, 'some.txt');
  writeFileSync(indices, Array.from({ length: 20 }, (_, i) => i * 3).join('\n'));
  const { comparison } = await operate({
    method: ssd,
    parameters: { alpha: 3, batchSize: 8 },
    model,
    output,
    forget: data,
    retain: data,
    indices,
    eval: inRepository('fixtures/mlp-regression/test.yaml'),
    reference: model,
    task: 'regression',
    threads: 1,
  });
  const { before, after, task, classes } = comparison!.forgetting!;
  expect({ task, classes }).toEqual({ task: 'regression', classes: undefined });
  expect(Object.keys(after.forget)).toEqual(['rmse', 'mae', 'r2']);
  expect(after.forget.rmse).toBeGreaterThan(before.forget.rmse);
  expect(before.wasserstein).toBe(0);
  expect(after.wasserstein).toBeGreaterThan(0);
  expect(after.classes).toBeUndefined();
  expect(after.membership).toBeUndefined();
  expect(after.membershipByLoss).not.toBeNull();
  expect(existsSync(output)).toBe(true);
});

test('a language model forgets sentences that it had learnt by heart', async () => {
  const lm = (path: string) => inRepository(`fixtures/${path}`);
  const kept = join(folder, 'kept.txt');
  writeFileSync(kept, readFileSync(lm('gpt-moby/calib.txt'), 'utf8').slice(0, 8000));
  const held = join(folder, 'held.txt');
  writeFileSync(held, readFileSync(lm('gpt-moby/heldout.txt'), 'utf8').slice(0, 6000));
  const { comparison } = await operate({
    method: ssd,
    parameters: { alpha: 2, fisher: 'sample' },
    model: lm('gpt-moby-planted/gpt-moby-planted.onnx'),
    output: join(folder, 'gpt.onnx'),
    forget: lm('gpt-moby-planted/planted.yaml'),
    retain: kept,
    eval: held,
    tokenizer: lm('gpt-moby/tokenizer.json'),
    threads: 1,
  });
  const { before, after, task } = comparison!.forgetting!;
  expect(task).toBe('lm');
  expect(before.forget.perplexity).toBeCloseTo(1.334, 2);
  expect(after.forget.perplexity).toBeGreaterThan(4 * before.forget.perplexity);
  expect(after.test!.perplexity).toBeLessThan(1.35 * before.test!.perplexity);
  expect(after.zrf).toBeUndefined();
});

describe('examples without labels', () => {
  const request = async (more: object) => {
    const { train } = await writeForgettingData(folder);
    const indices = join(folder, 'hundred.txt');
    writeFileSync(indices, Array.from({ length: 100 }, (_, i) => i).join('\n'));
    return operate({
      method: ssd,
      parameters: { variant: 'lfssd', alpha: 1.5, batchSize: 16 },
      model: goldenPath('mlp/mlp.onnx'),
      output: join(folder, 'unlabelled.onnx'),
      ...{ forget: train, retain: train, indices, task: 'none', threads: 1, ...more },
    });
  };
  test('are forgotten by LFSSD', async () => {
    const { comparison, layers } = await request({});
    expect(comparison!.forgetting).toMatchObject({ task: 'none', before: { forget: {} } });
    expect(Object.keys(changedOf(layers)).length).toBeGreaterThan(0);
  });
  test.each([
    [{ output: join(folder, 'none.onnx'), relearn: true }, 2, /--relearn/],
    [{ output: join(folder, 'none.onnx'), parameters: { alpha: 2 } }, 6, /unlabelled/],
  ])('are of no use to what needs labels: %j', async (more, exitCode, says) => {
    await expect(request(more)).rejects.toMatchObject({
      exitCode,
      message: expect.stringMatching(says),
    });
    expect(existsSync(join(folder, 'none.onnx'))).toBe(false);
  });
});
