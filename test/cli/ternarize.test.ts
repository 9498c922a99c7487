import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TernarizeLayer } from '../../src/methods/ternarize/layers.js';
import { readModel } from '../../src/onnx/index.js';
import type { OperationResult } from '../../src/recipe/operation.js';
import { feedsOf } from '../methods/compress/support.js';
import {
  expectCleanFailure,
  filesBelow,
  flat,
  inRepository,
  inTurns,
  json,
  newFolder,
  resect,
  scratchFolder,
} from '../support/cli.js';
import { gptMoby } from '../support/fixtures.js';
import { runOnce } from '../support/run.js';

const folder = scratchFolder();
let emptied = 0;
const path = (name: string) => join(folder, name);
const vgg7 = inRepository('fixtures/vgg7/vgg7.onnx');
const mlp7 = inRepository('fixtures/mlp7/mlp7.onnx');
const images = inRepository('fixtures/mlp7/train.yaml');
const test7 = inRepository('fixtures/mlp7/test.yaml');

type Result = OperationResult<TernarizeLayer>;

const ternarized = async (model: string, name: string, ...flags: string[]): Promise<Result> =>
  (await json(['ternarize', model, '-o', path(name), '--force', ...flags])) as Result;

const calib = ['--calib', images, '--eval', test7];
const accuracyOf = ({ comparison }: Result) => comparison?.metrics?.after.accuracy ?? Number.NaN;
const changedOf = ({ layers }: Result) => layers.filter(({ status }) => status === 'changed');
const kernelsOf = (result: Result) => changedOf(result).map(({ kernel }) => kernel);

describe('a convolutional network', () => {
  const runs: [name: string, flags: string[], size: number, kernels: string[]][] = [
    ['ort', [], 0.16, ['float', 'float', 'float', 'MatMulNBits']],
    ['trits', ['--pack', 'trits'], 0.16, ['float', 'float', 'float', 'MatMulNBits']],
    ['ort4', ['--format', 'ort4'], 0.18, ['float', 'float', 'float', 'MatMulNBits']],
    ['standard', ['--format', 'standard'], 0.15, ['float', 'float', 'float', 'float']],
    [
      'standard-int8',
      ['--format', 'standard-int8'],
      0.15,
      ['QLinearConv', 'QLinearConv', 'QLinearConv', 'MatMulInteger'],
    ],
    ['float', ['--format', 'float'], 1.05, ['float', 'float', 'float', 'float']],
  ];
  const results = new Map<string, Result>();
  beforeAll(async () => {
    await inTurns(runs, async ([name, flags]) => {
      results.set(name, await ternarized(vgg7, `${name}.onnx`, ...calib, ...flags));
    });
  }, 240_000);

  test.each(runs)(
    '%s: accurate, small, with the kernels it is for',
    async (name, _, size, kernels) => {
      const result = results.get(name)!;
      expect(accuracyOf(result)).toBeGreaterThan(0.925);
      const { before, after } = result.comparison!.size;
      expect(after.bytes / before.bytes).toBeLessThan(size);
      expect(after.bytes).toBe(readFileSync(path(`${name}.onnx`)).length);
      expect(kernelsOf(result)).toEqual(kernels);
      expect(result.notes.filter((note) => note.startsWith('SLOW'))).toEqual([]);
      const { proto } = await readModel(path(`${name}.onnx`));
      const [plain, optimized] = await Promise.all(
        [false, true].map((optimize) =>
          runOnce(path(`${name}.onnx`), feedsOf(proto), { optimize }),
        ),
      );
      const [a, b] = [plain.logits.data, optimized.logits.data] as Float32Array[];
      const scale = a.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      for (const [i, x] of a.entries()) expect(Math.abs(x - b[i]) / scale).toBeLessThan(0.05);
    },
  );

  test('every format holds the same codes, but for the scales that standard-int8 shares', () => {
    const errors = (name: string) =>
      changedOf(results.get(name)!).map((layer) => layer.outputError);
    for (const name of ['trits', 'ort4', 'standard', 'float'])
      expect(errors(name)).toEqual(errors('ort'));
  });

  test('five weights a byte, and scales', () => {
    const bits = changedOf(results.get('standard')!).map((layer) => layer.bitsPerWeight!);
    for (const b of bits) expect(b).toBeLessThan(1.95);
  });
});

describe('a language model', () => {
  const lm = ['--calib', gptMoby.calib, '--samples', '64', '--eval', gptMoby.heldout];
  const perplexityOf = ({ comparison }: Result) =>
    comparison?.metrics?.after.perplexity ?? Number.NaN;

  test('repair is worth it, and 4 levels are worth more', async () => {
    const runs: [string, string[]][] = [
      ['fit', ['--method', 'fit', '--bias', 'none']],
      ['default', []],
      ['levels4', ['--levels', '4']],
    ];
    const perplexities = new Map<string, number>();
    await inTurns(runs, async ([name, flags]) => {
      const result = await ternarized(gptMoby.model, `${name}.onnx`, ...lm, ...flags);
      expect(result.layers.find(({ name }) => name.includes('head'))?.status).toBe('skipped');
      perplexities.set(name, perplexityOf(result));
    });
    const of = (name: string) => perplexities.get(name)!;
    expect(of('default')).toBeLessThan(0.8 * of('fit'));
    expect(of('levels4')).toBeLessThan(0.8 * of('default'));
  }, 240_000);

  test('the same bytes from any number of threads', async () => {
    await inTurns(['1', '2'], async (threads) => {
      await ternarized(gptMoby.model, `t${threads}.onnx`, ...lm, '--oneshot', '--threads', threads);
    });
    const [one, two] = await Promise.all(
      ['t1.onnx', 't2.onnx'].map(
        async (name) => (await readModel(path(name))).proto.graph!.initializer,
      ),
    );
    const codes = (all: typeof one) =>
      all
        .filter(({ name }) => name?.endsWith('_blocks'))
        .map(({ rawData }) => Buffer.from(rawData!));
    expect(codes(one).length).toBe(24);
    // Products of the runtime may round differently on two threads: a code here and there.
    const [a, b] = [one, two].map((all) => Buffer.concat(codes(all)));
    let different = 0;
    for (const [i, byte] of a.entries()) if (byte !== b[i]) different++;
    expect(different / a.length).toBeLessThan(0.05);
  }, 240_000);
});

describe('mixed precision', () => {
  test('keeps within --max-drop on fewer bytes than int4', async () => {
    const uniform = await ternarized(mlp7, 'int4.onnx', ...calib, '--levels', '16', '--first-last');
    const flags = ['--mixed', 'auto', '--max-drop', 'accuracy=0.02', '--first-last'];
    const mixed = await ternarized(mlp7, 'mixed.onnx', ...calib, '--samples', '500', ...flags);
    const { before, after } = mixed.comparison!.metrics!;
    expect(before.accuracy - after.accuracy).toBeLessThanOrEqual(0.02);
    expect(mixed.comparison!.size.after.bytes).toBeLessThanOrEqual(
      uniform.comparison!.size.after.bytes,
    );
    expect(mixed.notes[0]).toMatch(/steps to fewer bytes keep within --max-drop/);
  }, 120_000);

  test('goes as far as --max-size asks', async () => {
    const flags = ['--mixed', 'auto', '--max-size', '45KB', '--first-last'];
    const result = await ternarized(mlp7, 'sized.onnx', ...calib, '--samples', '300', ...flags);
    expect(result.comparison!.size.after.bytes).toBeLessThan(45_000);
    expect(result.layers.some(({ levels }) => levels !== 3)).toBe(true);
  }, 120_000);
});

test('what is ternary already is packed without loss, with or without data', async () => {
  await ternarized(mlp7, 'study.onnx', ...calib, '--format', 'float', '--first-last');
  const again = await ternarized(
    path('study.onnx'),
    'packed.onnx',
    '--format',
    'standard',
    '--first-last',
  );
  expect(changedOf(again).map(({ coding }) => coding)).toEqual(['as they are', 'as they are']);
  const feeds = feedsOf((await readModel(mlp7)).proto);
  const [study, packed] = await Promise.all(
    ['study.onnx', 'packed.onnx'].map((name) => runOnce(path(name), feeds, { optimize: false })),
  );
  expect(packed.logits.data).toEqual(study.logits.data);
}, 120_000);

test('without data weights are fitted by themselves, and the report says so', async () => {
  const result = await ternarized(mlp7, 'fit.onnx', '--eval', test7, '--first-last');
  expect(changedOf(result).map(({ coding }) => coding)).toEqual(['fit', 'fit']);
  expect(result.notes.join(' ')).toMatch(/Without --calib/);
});

test('a layer that loses too much stays', async () => {
  const result = await ternarized(vgg7, 'guard.onnx', ...calib, '--max-layer-error', '0.03');
  const kept = result.layers.filter(({ reason }) => reason?.includes('--max-layer-error'));
  expect(kept.map(({ name }) => name)).toEqual(['/fc1/Gemm']);
  const outcome = await resect([
    ...['ternarize', vgg7, '-o', path('none.onnx'), '--calib', images, '--max-layer-error', '1e-9'],
  ]);
  expectCleanFailure(outcome, 5, /No layer can be packed within what it may lose/);
}, 120_000);

test('a dry run lists every layer and writes nothing', async () => {
  const empty = newFolder(folder, `empty-${++emptied}`);
  const { layers } = (await json(['ternarize', vgg7, '--dry-run'], { cwd: empty })) as Result;
  expect(layers.map(({ status }) => status)).toEqual([
    ...['skipped', 'skipped', 'changed', 'changed', 'changed', 'changed', 'skipped'],
  ]);
  expect(filesBelow(empty)).toEqual([]);
});

test.each([
  ['--method gptq', 'needs calibration data'],
  ['--bias full', 'needs calibration data'],
  [`--calib ${images} --quantizer absmean --method fit --bias full`, 'harmful with the scales'],
  [`--calib ${images} --method gptq --bias dead`, 'repairs twice'],
  [`--calib ${images} --quantizer sherry`, 'Three of four'],
  ['--quantizer asymmetric', 'no room for offsets'],
  ['--levels 4 --quantizer absmean', 'is for three levels'],
  ['--levels 5', '3, 4, 16 or 256'],
  ['--group 48', 'blocks of 32, 64 and 128'],
  ['--format standard-int8 --granularity group', 'one scale for each output'],
  ['--format standard --pack trits', 'another form of --format ort'],
  ['--format auto', 'how many rows'],
  ['--batch 4', 'only helps --format auto'],
  [`--calib ${images} --mixed auto`, 'needs to know what may be lost'],
])('%s is refused', async (flags, reason) => {
  const empty = newFolder(folder, `empty-${++emptied}`);
  const outcome = await resect(['ternarize', vgg7, '-o', 'out.onnx', ...flags.split(' ')], {
    cwd: empty,
  });
  expectCleanFailure(outcome, 2, /./);
  expect(flat(outcome.stderr)).toContain(reason);
  expect(filesBelow(empty)).toEqual([]);
});

test('a model without such layers, and a file that is no model', async () => {
  const tiny = await resect([
    'ternarize',
    inRepository('fixtures/mlp-regression/mlp-regression.onnx'),
    '-o',
    path('tiny.onnx'),
    '--exclude',
    '*',
  ]);
  expectCleanFailure(tiny, 5, /no layer whose weights could be packed/);
  writeFileSync(path('noise.onnx'), Buffer.from('not a model'));
  expectCleanFailure(
    await resect(['ternarize', path('noise.onnx'), '-o', path('x.onnx')]),
    5,
    /onnx/i,
  );
});
