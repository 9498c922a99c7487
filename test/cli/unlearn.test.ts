import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ssd as ssdMethod } from '../../src/methods/unlearn/ssd/method.js';
import { type OperationResult, operate } from '../../src/recipe/operation.js';
import {
  expectCleanFailure,
  filesBelow,
  flat,
  inRepository,
  json,
  newFolder,
  outcomeOf,
  output,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { mlpRegression } from '../support/fixtures.js';
import { writeForgettingData } from '../support/forgetting-data.js';
import { npy, npz } from '../support/npz.js';

const folder = scratchFolder();
const model = inRepository('fixtures/golden/ssd/mlp/mlp.onnx');
const cnn = inRepository('fixtures/golden/ssd/cnn/cnn.onnx');
let train = '';
let test_ = '';
beforeAll(async () => {
  ({ train, test: test_ } = await writeForgettingData(folder));
});

const path = (name: string) => join(folder, name);

type Request = Parameters<typeof operate<typeof ssdMethod.parameters>>[0];
const three = (): Partial<Request> => ({ forget: train, where: 'label=3' });
/** What the command does, in this process, without progress: it must end before any is made. */
const refused = (name: string, request: Partial<Request>) =>
  outcomeOf(() =>
    operate({
      method: ssdMethod,
      parameters: {},
      model,
      output: path(name),
      threads: 1,
      progress: (stage) => {
        throw new Error(`work was done: ${stage}`);
      },
      ...request,
    }),
  );

const class3 = () => ['--forget', train, '--where', 'label=3'];
const own = ['--batch-size', '16', '--alpha', '4', '--threads', '1'];
const ssd = (name: string, ...flags: string[]) => [
  ...['unlearn', 'ssd', model, '-o', path(name), '--force'],
  ...class3(),
  ...own,
  ...flags,
];

test('importances are stored once, and stand for all data afterwards', async () => {
  const stored = path('all.safetensors');
  const first = ssd('first.onnx', '--retain', train, '--save-importance', stored);
  expect(flat(await output(first))).toMatch(/note: importances of all data stored/);
  const second = (await json(ssd('second.onnx', '--importance', stored))) as OperationResult;
  expect(second.comparison?.forgetting?.samples).toEqual({
    forget: second.comparison?.forgetting?.samples.forget,
  });
  const diff = await resect(['diff', path('first.onnx'), path('second.onnx')]);
  // Other provenance, the same weights.
  expect(diff.stdout).not.toMatch(/fc\d/);

  // The model has changed since.
  const again = [
    ...['unlearn', 'ssd', path('first.onnx'), '-o', path('again.onnx')],
    ...['--forget', train, '--where', 'label=5', '--importance', stored, ...own],
  ];
  expectCleanFailure(await resect(again), 6, /state of the model.*--allow-stale-importance/);
  expect(flat(await output([...again, '--allow-stale-importance']))).toMatch(/approximate/);

  const settings = { alpha: 4, batchSize: 16, importance: stored };
  const cut = path('cut.safetensors');
  writeFileSync(cut, readFileSync(stored).subarray(0, 500));
  for (const [request, says] of [
    [{ parameters: { ...settings, variant: 'lfssd' } }, /another kind.*--variant/],
    [{ parameters: { ...settings, batchSize: 32 } }, /another batch size.*--batch-size 16/],
    [{ parameters: { ...settings, fisher: 'sample' } }, /another batch size/],
    [{ parameters: { ...settings, importance: cut } }, /cut\.safetensors/],
    [{ parameters: settings, model: cnn }, /another model/],
  ] as const)
    expectCleanFailure(await refused('other.onnx', { ...three(), ...request }), 6, says);
  expect(existsSync(path('other.onnx'))).toBe(false);
});

test('only selected tensors differ', async () => {
  const flags = ['--retain', train, '--include', 'fc2*', '--no-provenance'];
  await output(ssd('fc2.onnx', ...flags));
  const { code, stdout } = await resect(['diff', model, path('fc2.onnx')]);
  expect(code).toBe(1);
  expect(stdout).toMatch(/fc2\.weight/);
  expect(stdout).not.toMatch(/fc[13]\./);
});

test('reports, as Markdown, JSON and --json, with a reference and relearning', async () => {
  const reports = ['--report', path('r.md'), '--report', path('r.json')];
  const flags = ['--retain', train, '--eval', test_, '--reference', model, '--relearn', ...reports];
  const printed = (await json(ssd('told.onnx', ...flags))) as OperationResult;
  const { forgetting } = printed.comparison!;
  expect(forgetting).toMatchObject({
    task: 'classification',
    classes: [3],
    before: { forget: { accuracy: expect.any(Number) }, relearnSteps: 0, tugOfWar: 1 },
    after: {
      testForget: { accuracy: expect.any(Number) },
      testRetain: { accuracy: expect.any(Number) },
      membership: { forgetRate: expect.any(Number), attackAuc: expect.any(Number) },
      zrf: expect.any(Number),
      relearnSteps: expect.any(Number),
    },
    reference: { relearnSteps: 0 },
  });
  expect(forgetting!.after.relearnSteps).toBeGreaterThan(0);
  expect(JSON.parse(readFileSync(path('r.json'), 'utf8'))).toEqual(printed);
  const markdown = readFileSync(path('r.md'), 'utf8');
  expect(markdown).toMatch(/\| forget set: accuracy *\|/);
  expect(markdown).toMatch(/\| forget set taken for training data, by entropy *\|/);
  expect(markdown).toMatch(/\| test accuracy of class *\|/);
  expect(markdown).toMatch(/\| steps to relearn *\| *0 *\| *\d+ *\| *0 *\|/);
});

test('a regression is reported without accuracies', async () => {
  const indices = path('some.txt');
  writeFileSync(indices, Array.from({ length: 30 }, (_, i) => i).join('\n'));
  const data = inRepository('fixtures/mlp-regression/train.yaml');
  const text = await output([
    ...[
      'unlearn',
      'ssd',
      mlpRegression.model,
      '-o',
      path('regression.onnx'),
      '--task',
      'regression',
    ],
    ...[
      '--forget',
      data,
      '--retain',
      data,
      '--indices',
      indices,
      '--alpha',
      '2',
      '--batch-size',
      '8',
    ],
  ]);
  expect(text).toMatch(/forget set: rmse/);
  expect(text).not.toMatch(/accuracy/);
});

test('a dry run lists parameters, and writes nothing', async () => {
  const empty = newFolder(folder, 'dry');
  const flags = ['--dry-run', '--exclude', 'fc3*', '--save-importance', 'all.safetensors'];
  const text = await output(['unlearn', 'ssd', model, ...flags], { cwd: empty });
  expect(text).toMatch(/^fc1\.weight +24 x 784$/m);
  expect(flat(text)).toMatch(/skipped, not selected: fc3\.weight, fc3\.bias/);
  expect(filesBelow(empty)).toEqual([]);
});

describe('gates', () => {
  const data = () => ['--retain', train, '--eval', test_];
  test('hold', async () => {
    const gates = ['--min-forget', 'accuracy=0.3', '--max-drop', 'accuracy=0.3'];
    expect(await output(ssd('held.onnx', ...data(), ...gates))).toMatch(/passed: --min-forget/);
  });
  test.each([
    ['--min-forget', 'accuracy=0.99'],
    ['--max-drop', 'accuracy=-0.5'],
  ])('fail: %s %s', async (...gate) => {
    const name = `failed${gate[0]}.onnx`;
    const { code, stdout, stderr } = await resect(ssd(name, ...data(), ...gate));
    expect({ code, stderr }).toEqual({ code: 4, stderr: 'A gate failed: nothing was written.\n' });
    expect(flat(stdout)).toMatch(/FAILED: --m/);
    expect(existsSync(path(name))).toBe(false);
  });
});

describe('baselines', () => {
  const flags = () => [...class3(), '--retain', train, '--threads', '1', '--epochs', '1'];
  test('write a model each, and the same each time', async () => {
    for (const name of ['finetune', 'amnesiac', 'gradient-ascent'])
      await output(['unlearn', name, model, '-o', path(`${name}.onnx`), ...flags()]);
    await output(['unlearn', 'finetune', model, '-o', path('again-tuned.onnx'), ...flags()]);
    expect(sha256(path('again-tuned.onnx'))).toBe(sha256(path('finetune.onnx')));
    expect(sha256(path('finetune.onnx'))).not.toBe(sha256(model));
  });
  test('say when they diverge', async () => {
    const run = ['unlearn', 'finetune', model, '-o', path('diverged.onnx'), ...flags()];
    expectCleanFailure(
      await resect([...run, '--learning-rate', '1e20', '--batch-size', '16']),
      5,
      /Training diverged.*--learning-rate/,
    );
  });
});

describe('refused before any work', () => {
  test.each([
    [
      'no forget set',
      () => ['--retain', train],
      /needs the examples that are to be forgotten.*--forget/,
    ],
    [
      'an alpha that is none',
      () => [...class3(), '--retain', train, '--alpha', 'all'],
      /a number above 0, or auto/,
    ],
    [
      'an unknown metric',
      () => [...class3(), '--retain', train, '--min-forget', 'glory=1'],
      /unknown metric/,
    ],
  ] as const)('%s', async (_, flags, says) => {
    const empty = newFolder(folder, 'refused');
    const run = await resect(['unlearn', 'ssd', model, '-o', join(empty, 'out.onnx'), ...flags()]);
    expectCleanFailure(run, 2, says);
    expect(filesBelow(empty)).toEqual([]);
  });

  const same = () => ({ ...three(), retain: train });
  const stores = (file: string) => ({ ...same(), parameters: { saveImportance: file } });
  const wrong: [name: string, request: () => Partial<Request>, code: number, says: RegExp][] = [
    ['no retain set', three, 2, /needs training examples that are to be kept.*--retain/],
    ['one set twice', () => ({ ...same(), where: undefined }), 2, /are the same data.*--where/],
    [
      'one file in two ways',
      () => ({ ...three(), retain: path('train.npz') }),
      2,
      /holds the examples that are to be forgotten/,
    ],
    ['none selected', () => ({ ...same(), where: 'label=77' }), 6, /no example is selected/i],
    [
      'examples for another model',
      () => ({ ...three(), retain: inRepository('fixtures/mlp-regression/train.yaml') }),
      6,
      /mlp-regression/,
    ],
    [
      'examples for another task',
      () => ({ ...three(), retain: path('floats.npz') }),
      6,
      /another task.*expected: classification.*got: regression/,
    ],
    [
      'a metric of another task',
      () => ({ ...same(), gates: { minForget: ['perplexity=1'] } }),
      2,
      /--min-forget names a metric that was not measured.*accuracy/,
    ],
    ['a missing reference', () => ({ ...same(), reference: path('none.onnx') }), 7, /none\.onnx/],
    [
      'another reference',
      () => ({ ...same(), reference: mlpRegression.model }),
      5,
      /takes other inputs/,
    ],
    [
      'missing importances',
      () => ({ ...three(), parameters: { importance: path('none') } }),
      7,
      /none/,
    ],
    [
      'importances over the data',
      () => ({ ...stores(path('train.npz')), force: true }),
      7,
      /is the input itself/,
    ],
    [
      'importances over the model',
      () => ({ ...stores(model), force: true }),
      7,
      /is the input itself/,
    ],
    [
      'importances over the output',
      () => stores(path('refused/out.onnx')),
      2,
      /Two results would be written/,
    ],
    ['importances in no folder', () => stores(path('no/where')), 7, /no folder/],
  ];
  test.each(wrong)('%s', async (_, request, code, says) => {
    const empty = newFolder(folder, 'refused');
    const fraction = npy('<f4', [2], Float32Array.of(0.5, 1.5));
    const pixels = npy('|u1', [2, 1, 28, 28], new Uint8Array(2 * 784));
    writeFileSync(path('floats.npz'), npz({ input: pixels, label: fraction }));
    expectCleanFailure(await refused('refused/out.onnx', request()), code, says);
    expect(filesBelow(empty)).toEqual([]);
  });

  test('a file of importances that exists, unless --force', async () => {
    const stored = path('old.safetensors');
    writeFileSync(stored, 'old');
    const args = ssd('stored.onnx', '--retain', train, '--save-importance', stored);
    const gentle = args.filter((arg) => arg !== '--force');
    expectCleanFailure(await resect(gentle), 7, /old\.safetensors: it exists already/);
    expect(readFileSync(stored, 'utf8')).toBe('old');
    await output(args);
    expect(readFileSync(stored).length).toBeGreaterThan(1000);
  });
});

test('an interrupted run leaves nothing', async () => {
  const empty = newFolder(folder, 'interrupted');
  const full = inRepository('fixtures/golden/ssd/data/train.yaml');
  const { code, signal } = await resect(
    [
      ...['unlearn', 'finetune', cnn, '-o', join(empty, 'out.onnx'), '--threads', '1'],
      ...['--forget', full, '--where', 'label=3', '--retain', full],
      // Minutes of work: the signal comes in the middle of it however fast the machine is.
      ...['--epochs', '1000'],
    ],
    { started: (child) => setTimeout(() => child.kill('SIGINT'), 1500) },
  );
  expect(code === 130 || signal === 'SIGINT').toBe(true);
  expect(filesBelow(empty)).toEqual([]);
});
