import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openNpz } from '../../src/data/npz.js';
import { encodeModel, parseModel } from '../../src/onnx/index.js';
import type { OperationResult } from '../../src/recipe/operation.js';
import {
  expectCleanFailure,
  filesBelow,
  flat,
  inRepository,
  json,
  newFolder,
  output,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { writeForgettingData } from '../support/forgetting-data.js';
import { npy, npz } from '../support/npz.js';

const folder = scratchFolder();
const path = (name: string) => join(folder, name);
const model = inRepository('fixtures/golden/laf/laf.onnx');
const quick = ['--vae-epochs', '2', '--epochs', '3'];
let train = '';
let test_ = '';
beforeAll(async () => {
  ({ train, test: test_ } = await writeForgettingData(folder));
});

const laf = (name: string, ...flags: string[]) => [
  ...['unlearn', 'laf', model, '-o', path(name)],
  ...['--forget', train, '--where', 'label=0', '--retain', train],
  ...quick,
  ...flags,
];

test('a dry run tells where the model is cut, and where it may be', async () => {
  const { code, stdout } = await resect(['unlearn', 'laf', model, '--dry-run']);
  expect(code).toBe(0);
  expect(flat(stdout)).toMatch(
    /note: representations are read at "\/fc2\/fc2\.0\/Gemm_output_0" \(Gemm, 32 numbers/,
  );
  expect(flat(stdout)).toMatch(
    /note: --split may name .*"\/fc1\/Gemm_output_0" \(Gemm, 64 numbers/,
  );
  expect(flat(stdout)).toMatch(/skipped, in the classifier: fc2\.1\.weight, fc2\.1\.bias/);
  expect(stdout.split('\n').every((line) => line.length <= 80)).toBe(true);
  const lm = inRepository('fixtures/gpt-moby/gpt-moby.onnx');
  expectCleanFailure(await resect(['unlearn', 'laf', lm, '--dry-run']), 5, /cut in two/);
});

test('a run, its table and its results', async () => {
  const reports = ['--report', path('r.md'), '--report', path('r.json')];
  const result = (await json(
    laf('told.onnx', '--eval', test_, '--split', '/fc1/Gemm_output_0', '--relearn', ...reports),
  )) as OperationResult;
  const { before, after, classes } = result.comparison!.forgetting!;
  expect(classes).toEqual([0]);
  for (const side of [before, after])
    expect(side).toMatchObject({
      forget: { accuracy: expect.any(Number) },
      retain: { accuracy: expect.any(Number) },
      testForget: { accuracy: expect.any(Number) },
      membership: { forgetRate: expect.any(Number) },
      relearnSteps: expect.any(Number),
    });
  expect(result.training?.map(({ stage }) => stage)).toEqual([
    'autoencoder of all examples',
    'autoencoder of the forget set',
    'unlearning',
  ]);
  expect(result.training?.[2].epochs[0]).toEqual({
    unlearning: expect.any(Number),
    alignment: expect.any(Number),
    keptShift: expect.any(Number),
    forgottenShift: expect.any(Number),
  });
  expect(readFileSync(path('r.md'), 'utf8')).toMatch(/forget set: accuracy/);
  expect(JSON.parse(readFileSync(path('r.json'), 'utf8')).training).toHaveLength(3);
  // The classifier is as it was.
  const { stdout } = await resect(['diff', model, path('told.onnx')]);
  expect(stdout).toMatch(/fc1\.weight/);
  expect(stdout).not.toMatch(/fc2/);
});

test('threads do not change the result', async () => {
  const same = ['--no-provenance', '--seed', '3'];
  await output(laf('one.onnx', ...same, '--threads', '1'));
  await output(laf('two.onnx', ...same, '--threads', '2'));
  expect(sha256(path('one.onnx'))).toBe(sha256(path('two.onnx')));
});

test('sets without labels are compared with what the model said before', async () => {
  const file = await openNpz(inRepository('fixtures/golden/ssd/data/train.npz'));
  const input = await file.column('input');
  const { dims } = await input.item(0);
  const write = async (name: string, from: number, count: number) => {
    const rows = Array.from({ length: count }, (_, i) => from + i);
    const pixels = await Promise.all(
      rows.map(async (i) =>
        Buffer.from(
          Float32Array.from((await input.item(i)).data as Uint8Array, (x) => x / 255).buffer,
        ),
      ),
    );
    writeFileSync(path(name), npz({ input: npy('<f4', [count, ...dims], Buffer.concat(pixels)) }));
    return path(name);
  };
  const sets = ['--forget', await write('f.npz', 0, 40), '--retain', await write('r.npz', 40, 90)];
  const blind = (name: string, ...flags: string[]) =>
    resect(['unlearn', 'laf', model, '-o', path(name), ...sets, ...quick, ...flags]);

  const plain = await blind('plain.onnx');
  expect(plain.code).toBe(0);
  expect(flat(plain.stdout)).toMatch(/forget set: cosine 1 0\.\d+/);
  expect(flat(plain.stdout)).toMatch(/WARNING: no measurable change/);
  const told = await blind('told2.onnx', '--task', 'classification', '--eval', test_);
  expect(flat(told.stdout)).toMatch(/forget set: agreement 100\.00 % \d+\.\d+ %/);
  expect(flat(told.stdout)).toMatch(/test set: accuracy/);
  expect(flat(told.stdout)).toMatch(/forget set taken for training data, by entropy/);
  const gated = ['--task', 'classification', '--min-forget', 'agreement=0.9'];
  expect((await blind('gated.onnx', ...gated)).code).toBe(4);
  const unmeasured = ['--min-forget', 'agreement=0.9'];
  expectCleanFailure(await blind('refused.onnx', ...unmeasured), 2, /was not measured/);
  for (const [flags, says] of [
    [['--supervised-repair'], /The repair takes labels/],
    [['--min-retain', '0.9'], /--min-retain watches the accuracy.*--max-shift/],
    [['--relearn'], /--relearn .* needs labels/],
  ] as const)
    expectCleanFailure(await blind('refused.onnx', ...flags), 2, says);
  expect(existsSync(path('refused.onnx'))).toBe(false);
});

test('a checkpoint of another request is refused, though the data is the same file', async () => {
  const state = path('of-class-0.safetensors');
  await output([...laf('class-0.onnx'), '--checkpoint', state]);
  const other = laf('class-1.onnx', '--checkpoint', state, '--resume').map((flag) =>
    flag === 'label=0' ? 'label=1' : flag,
  );
  expectCleanFailure(await resect(other), 6, /of another run.*representations/);
});

test('an interrupted run goes on from its checkpoint, to the same bytes', async () => {
  const own = newFolder(folder, 'interrupted');
  const state = join(own, 'state.safetensors');
  const run = (name: string, ...flags: string[]) => [
    ...laf(`interrupted/${name}`, '--no-provenance', '--unlearn-rate', '1e-4', '--align-rate'),
    ...['2e-4', ...flags],
  ];
  const watch = (child: { kill(signal: 'SIGINT'): boolean }) => {
    const timer = setInterval(() => {
      if (!existsSync(state)) return;
      clearInterval(timer);
      child.kill('SIGINT');
    }, 20);
  };
  const long = run('out.onnx', '--checkpoint', state).map((flag, i, all) =>
    // Minutes of work: the signal comes in the middle of it however fast the machine is.
    all[i - 1] === '--epochs' ? '5000' : flag,
  );
  const { code, signal } = await resect(long, { started: watch });
  expect(code === 130 || signal === 'SIGINT').toBe(true);
  expect(filesBelow(own)).toEqual(['state.safetensors']);

  expectCleanFailure(await resect(run('out.onnx', '--checkpoint', state)), 7, /exists already/);
  const made = JSON.parse(
    /"state":"(.*?)(?<!\\)"/.exec(readFileSync(state, 'latin1'))?.[1].replaceAll('\\"', '"') ?? '',
  ).epochs.length;
  const epochs = ['--epochs', String(made + 1)];
  const without = (args: string[]) =>
    args.filter((flag, i, all) => flag !== '--epochs' && all[i - 1] !== '--epochs');
  const resumed = await resect([
    ...without(run('out.onnx', '--checkpoint', state, '--resume')),
    ...epochs,
  ]);
  expect(flat(resumed.stdout)).toMatch(`note: resumed after epoch ${made}`);
  await output([...without(run('whole.onnx')), ...epochs]);
  expect(sha256(join(own, 'out.onnx'))).toBe(sha256(join(own, 'whole.onnx')));
});

describe('what cannot be done is refused, and nothing is written', () => {
  const frozen = () => {
    const proto = parseModel(new Uint8Array(readFileSync(model))).proto;
    const [input] = proto.graph!.input;
    input.type!.tensorType!.shape!.dim[0] = { dimValue: 4 };
    writeFileSync(path('frozen.onnx'), encodeModel(proto));
    return path('frozen.onnx');
  };
  test.each([
    [
      'a batch that is fixed',
      frozen,
      [],
      5,
      /batches of any size.*input "input".*\[4, 1, 28, 28\].*batch axis that is free/,
    ],
    [
      'a place that is none',
      () => model,
      ['--split', 'fc9'],
      2,
      /--split fc9.*\/fc1\/Gemm_output_0/,
    ],
    ['no checkpoint to go on from', () => model, ['--resume'], 2, /--checkpoint FILE/],
    [
      'a checkpoint in the place of the output',
      () => model,
      ['--checkpoint', 'same'],
      2,
      /same file/,
    ],
  ] as const)('%s', async (_, file, flags, exitCode, says) => {
    const own = newFolder(folder, String(flags) + exitCode);
    const target = join(own, 'out.onnx');
    const outcome = await resect([
      ...['unlearn', 'laf', file(), '-o', target, '--forget', train, '--where', 'label=0'],
      ...['--retain', train, ...quick, ...flags.map((f) => (f === 'same' ? target : f))],
    ]);
    expectCleanFailure(outcome, exitCode, says);
    expect(filesBelow(own)).toEqual([]);
  });
});
