import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { linear } from '../../src/methods/merge/static/linear.js';
import { t3 } from '../../src/methods/merge/t3/method.js';
import { readModel, readTensorFloat32 } from '../../src/onnx/index.js';
import { operate } from '../../src/recipe/operation.js';
import {
  expectCleanFailure,
  filesBelow,
  flat,
  inRepository,
  newFolder,
  outcomeOf,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { badModels } from '../support/malformed-models.js';
import { variants } from '../support/variants.js';

const folder = scratchFolder();
const fixture = (name: string) => inRepository(`fixtures/merging/${name}`);
const [generalist, expertA, expertB] = ['generalist', 'expert-a', 'expert-b'].map((name) =>
  fixture(`${name}.onnx`),
);
const resnet8 = inRepository('fixtures/resnet8/resnet8.onnx');
const pair = ['--generalist', generalist, '--expert', expertA];
const sets = [
  ...['--eval', `fashion=${fixture('test-fashion.yaml')}`],
  ...['--eval', `digits=${fixture('test-digits.yaml')}`],
];

/** The JSON that a run prints. */
async function json(...args: string[]) {
  const outcome = await resect([...args, '--json']);
  expect(outcome).toMatchObject({ code: 0, stderr: '' });
  return JSON.parse(outcome.stdout);
}

interface Row {
  name: string;
  metrics: { accuracy: number }[];
}

const accuracies = (result: { comparison: { merging: { rows: Row[] } } }, name: string) =>
  result.comparison.merging.rows.find((row) => row.name === name)?.metrics.map((m) => m.accuracy);

test('T3 in batches, calibrated: the expert at home, the generalist elsewhere', async () => {
  const out = join(folder, 't3.onnx');
  const before = [generalist, expertA].map(sha256);
  const args = ['merge', 't3', ...pair, '-o', out, ...sets, '--mce'];
  const result = await json(...args, '--calib', fixture('calib-fashion.yaml'));
  const [fashion, digits] = accuracies(result, 'merged') ?? [];
  expect(fashion).toBeGreaterThan(0.89);
  expect(digits).toBeGreaterThan(0.93);
  expect(accuracies(result, 'expert')).toEqual([0.906, 0.001]);
  expect(accuracies(result, 'generalist')).toEqual([0.82, 0.943]);
  const { merging } = result.comparison;
  expect(merging.rows).toHaveLength(13);
  expect(merging.reference).toBe('generalist');
  const last = merging.rows.at(-1);
  expect(last.coefficients[0].lambda[1]).toBeLessThan(0.2);
  expect(last.coefficients[1].lambda[1]).toBeGreaterThan(0.95);
  expect(result.parameters.form).toBeUndefined();
  expect(result.notes.join()).toMatch(/3 times the mean disagreement/);
  expect([generalist, expertA].map(sha256)).toEqual(before);
}, 60_000);

test('the table for people fits 80 columns and names what a static weight does better', async () => {
  const { code, stdout } = await resect(
    [
      ...['merge', 't3', '--generalist', 'generalist.onnx', '--expert', 'expert-a.onnx'],
      ...['--eval', 'fashion=test-fashion.yaml', '--eval', 'digits=test-digits.yaml'],
      ...['-o', join(folder, 'l.onnx'), '--form', 'literal', '--report', join(folder, 'r.md')],
      '--mce',
    ],
    { cwd: fixture('') },
  );
  expect(code).toBe(0);
  const lines = stdout.split('\n').filter((line) => !line.startsWith('written'));
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
  expect(flat(stdout)).toMatch(/nearly a fixed average/);
  expect(flat(stdout)).toMatch(/A static weight is better than the merge/);
  expect(stdout).toMatch(/0\.50 generalist/);
  expect(readFileSync(join(folder, 'r.md'), 'utf8')).toMatch(/\| ensemble \|/);
}, 60_000);

test.each(['batch', 'sample', 'cluster', 'static'])(
  '--mode %s writes a model that runs',
  async (mode) => {
    const out = join(folder, `${mode}.onnx`);
    const result = await json(
      ...['merge', 't3', ...pair, '-o', out, ...sets, '--sweep', '0', '--mode', mode],
      ...['--calib', fixture('calib-fashion.yaml')],
    );
    const [fashion, digits] = accuracies(result, 'merged') ?? [];
    expect(fashion).toBeGreaterThan(0.8);
    if (mode !== 'static') expect(digits).toBeGreaterThan(0.93);
    else {
      const { proto } = await readModel(out);
      const keys = proto.metadataProps?.map(({ key }) => key);
      expect(keys).toEqual(expect.arrayContaining(['t3.lambda', 't3.js_mean']));
      const expert = await readModel(expertA);
      expect(proto.graph?.initializer.map(({ name }) => name)).toEqual(
        expert.proto.graph?.initializer.map(({ name }) => name),
      );
    }
  },
  60_000,
);

test.each(['sample', 'cluster'])(
  'DaWin, --mode %s',
  async (mode) => {
    const out = join(folder, `dawin-${mode}.onnx`);
    const result = await json(
      ...['merge', 'dawin', ...pair, '-o', out, ...sets, '--mode', mode, '--offset'],
      ...['--calib', fixture('calib-fashion.yaml'), '--sweep', '0'],
    );
    expect(accuracies(result, 'merged')?.[0]).toBeGreaterThan(0.8);
  },
  60_000,
);

const bases = ['--base', generalist];
const statics: [string, string[]][] = [
  ['linear', [expertA, expertB, '--weights', '0.4,0.6']],
  ['soup', [expertA, expertB, generalist]],
  ['slerp', [expertA, expertB, '--t', '0.4']],
  ['task-arithmetic', [expertA, expertB, ...bases]],
  ['ties', [expertA, expertB, ...bases, '--density', '0.5', '--scale', '0.5']],
  ['ties', [expertA, expertB, ...bases, '--trim', 'model', '--scale', '0.5']],
  ['dare', [expertA, expertB, ...bases, '--density', '0.9']],
  ['dare', [expertA, expertB, ...bases, '--combine', 'ties', '--density', '0.9', '--scale', '0.5']],
];
test.each(statics)(
  '%s %#',
  async (method, args) => {
    const out = join(folder, 'static.onnx');
    const result = await json(
      'merge',
      method,
      ...args,
      '-o',
      out,
      '--force',
      ...sets,
      '--sweep',
      '0',
    );
    const [fashion, digits] = accuracies(result, 'merged') ?? [];
    expect((fashion + digits) / 2).toBeGreaterThan(0.55);
    expect(result.layers).toHaveLength(17);
  },
  60_000,
);

test('a merge is what the arithmetic says, tensor by tensor', async () => {
  const out = join(folder, 'mean.onnx');
  await operate({
    method: linear,
    parameters: { weights: '1,3' },
    model: expertA,
    output: out,
    merging: { others: [expertB], names: ['a', 'b'] },
  });
  const models = await Promise.all([expertA, expertB, out].map(readModel));
  for (const [i, tensor] of (models[0].proto.graph?.initializer ?? []).entries()) {
    const [a, b, mean] = await Promise.all(
      models.map((m) => readTensorFloat32(m, m.proto.graph!.initializer[i])),
    );
    expect(models[2].proto.graph!.initializer[i].name).toBe(tensor.name);
    for (let k = 0; k < a.length; k++) expect(mean[k]).toBe(Math.fround(0.25 * a[k] + 0.75 * b[k]));
  }
});

test('DARE: the same bytes for the same seed, whichever model comes first but for names', async () => {
  const run = async (name: string, models: string[], seed: string) => {
    const out = join(folder, name);
    const args = [
      'merge',
      'dare',
      ...models,
      ...bases,
      '-o',
      out,
      '--seed',
      seed,
      '--no-provenance',
    ];
    expect(await resect(args)).toMatchObject({ code: 0 });
    return sha256(out);
  };
  const [first, again, turned, other] = [
    await run('dare-1.onnx', [expertA, expertB], '7'),
    await run('dare-2.onnx', [expertA, expertB], '7'),
    await run('dare-3.onnx', [expertB, expertA], '7'),
    await run('dare-4.onnx', [expertA, expertB], '8'),
  ];
  expect(again).toBe(first);
  expect(other).not.toBe(first);
  const [a, b] = await Promise.all(
    ['dare-1.onnx', 'dare-3.onnx'].map((name) => readModel(join(folder, name))),
  );
  expect(turned).toEqual(expect.any(String));
  for (const [i, tensor] of a.proto.graph!.initializer.entries()) {
    const [x, y] = [
      await readTensorFloat32(a, tensor),
      await readTensorFloat32(b, b.proto.graph!.initializer[i]),
    ];
    for (let k = 0; k < x.length; k++) expect(x[k]).toBeCloseTo(y[k], 6);
  }
}, 60_000);

test('partial merges keep what is left out', async () => {
  const out = join(folder, 'partial.onnx');
  const result = await json('merge', 'soup', expertA, expertB, '-o', out, '--exclude', 'fc.*');
  expect(result.layers).toHaveLength(15);
  const [before, after] = await Promise.all([expertA, out].map(readModel));
  const head = async (m: typeof before) =>
    readTensorFloat32(m, m.proto.graph!.initializer.find(({ name }) => name === 'fc.weight')!);
  expect(await head(after)).toEqual(await head(before));
}, 60_000);

test('two language models in different valleys: said so', async () => {
  const lm = (name: string) => inRepository(`fixtures/${name}`);
  const result = await json(
    ...['merge', 't3', '--generalist', lm('gpt-moby/gpt-moby.onnx')],
    ...['--expert', lm('gpt-moby-planted/gpt-moby-planted.onnx'), '-o', join(folder, 'lm.onnx')],
    ...['--eval', `book=${lm('gpt-moby/heldout.yaml')}`, '--sweep', '3'],
  );
  expect(result.notes.join()).toMatch(/different valleys/);
  expect(result.comparison.merging.metric).toEqual(['perplexity']);
  expect(result.comparison.merging.rows.map(({ name }: Row) => name)).toEqual([
    'expert',
    'generalist',
    '0.50 generalist',
    'ensemble',
    'merged',
  ]);
}, 60_000);

test('a dry run tells the pairs and writes nothing', async () => {
  const cwd = newFolder(folder, 'dry');
  const { code, stdout } = await resect(['merge', 't3', ...pair, '--dry-run'], { cwd });
  expect(code).toBe(0);
  expect(stdout).toMatch(/conv2\.conv\.weight/);
  expect(filesBelow(cwd)).toEqual([]);
});

test('gates hold on every set', async () => {
  const out = newFolder(folder, 'gated');
  const args = [
    'merge',
    'soup',
    expertA,
    generalist,
    '-o',
    join(out, 'x.onnx'),
    ...sets,
    '--sweep',
    '0',
  ];
  const failed = await resect([...args, '--min', 'accuracy=0.8']);
  expect(failed.code).toBe(4);
  expect(flat(failed.stdout)).toMatch(/passed: --min accuracy=0.8 on fashion/);
  expect(flat(failed.stdout)).toMatch(/FAILED: --min accuracy=0.8 on digits/);
  expect(filesBelow(out)).toEqual([]);
  const passed = await resect([...args, '--max-drop', 'accuracy=0.08', '--max-size', '1.1x']);
  expect(passed.code).toBe(0);
}, 60_000);

test('BatchNormalizations folded, or with statistics of their own', async () => {
  for (const bn of ['fold', 'reestimate']) {
    const result = await json(
      ...['merge', 'soup', expertA, generalist, '-o', join(folder, `${bn}.onnx`), '--bn', bn],
      ...['--calib', fixture('calib-fashion.yaml'), ...sets.slice(0, 2), '--sweep', '0'],
    );
    expect(accuracies(result, 'merged')?.[0]).toBeGreaterThan(0.8);
  }
  const { proto } = await readModel(join(folder, 'fold.onnx'));
  expect(proto.graph?.node.some(({ opType }) => opType === 'BatchNormalization')).toBe(false);
}, 60_000);

describe('what cannot be merged', () => {
  const folded = inRepository('fixtures/resnet8/resnet8-folded.onnx');
  const wrong: [string, string[], number, RegExp][] = [
    ['one model', ['linear', expertA], 2, /two models/],
    ['no base', ['ties', expertA, expertB], 2, /flag base/],
    ['three models for an arc', ['slerp', expertA, expertB, generalist], 2, /two models/],
    ['an unknown flag', ['linear', expertA, expertB, '--frobnicate'], 2, /--frobnicate/],
    ['too few weights', ['linear', expertA, expertB, '--weights', '1'], 2, /2 numbers/],
    ['weights that are none', ['linear', expertA, expertB, '--weights', '1,x'], 2, /2 numbers/],
    ['weights that cancel', ['linear', expertA, expertB, '--weights', '1,-1'], 2, /sum/],
    ['no such file', ['linear', expertA, 'nothing.onnx'], 7, /nothing\.onnx/],
    ['another network', ['linear', expertA, resnet8], 5, /same/],
    ['folded and not', ['linear', resnet8, folded], 5, /--bn fold/],
    ['no expert', ['t3', '--generalist', generalist], 2, /expert/],
    ['λ upside down', ['t3', ...pair, '--lmin', '0.9', '--lmax', '0.1'], 2, /--lmin/],
    ['λ beyond the models', ['t3', ...pair, '--lmax', '1.5'], 2, /--allow-extrapolation/],
    ['γ below 0', ['t3', ...pair, '--gamma', '-1'], 2, /gamma/],
    ['τ of 0', ['t3', ...pair, '--tau', '0'], 2, /tau/],
    [
      'γ for the calibrated form',
      ['t3', ...pair, '--tau', '1', '--form', 'calibrated', '--gamma', '1'],
      2,
      /--kappa/,
    ],
    ['no data to calibrate', ['t3', ...pair, '--form', 'calibrated'], 2, /--calib/],
    ['no data for clusters', ['t3', ...pair, '--mode', 'cluster'], 2, /--calib/],
    [
      'statistics of many merges',
      ['t3', ...pair, '--bn', 'reestimate', '--calib', fixture('calib.yaml')],
      2,
      /--mode static/,
    ],
    ['mCE of nothing', ['t3', ...pair, '--mce'], 2, /--eval/],
    [
      'mCE without drift',
      ['t3', ...pair, '--mce', '--eval', `clean=${fixture('test.yaml')}`],
      2,
      /drift/,
    ],
    [
      'two sets of one name',
      ['t3', ...pair, ...sets.slice(0, 2), ...sets.slice(0, 2)],
      2,
      /one name/,
    ],
    ['an output that is not there', ['t3', ...pair, '--scores', 'x'], 2, /--scores/],
  ];
  test.each(wrong)(
    '%s',
    async (what, args, code, says) => {
      const out = newFolder(folder, `wrong-${what.replace(/\W+/g, '-')}`);
      const outcome = await resect(['merge', ...args, '-o', join(out, 'x.onnx')]);
      expect(outcome.code).toBe(code);
      expect(flat(outcome.stderr)).toMatch(says);
      expect(outcome.stderr).not.toMatch(/^\s+at /m);
      expect(filesBelow(out)).toEqual([]);
    },
    30_000,
  );

  test.each(['int8 per channel', 'uint8 per tensor', 'half model'])('%s', async (name) => {
    const variant = variants.find((v) => v.name === name);
    const path = variant?.write(newFolder(folder, name.replaceAll(' ', '-'))) ?? '';
    const out = join(folder, 'never.onnx');
    const outcome = await resect(['merge', 'linear', resnet8, path, '-o', out]);
    expectCleanFailure(outcome, 5, name === 'half model' ? /precision/ : /quantised/);
  });

  test('over one of its own inputs', async () => {
    const outcome = await resect(['merge', 'linear', expertA, expertB, '-o', expertB, '--force']);
    expectCleanFailure(outcome, 7, /input itself/);
  });

  test.each(badModels.filter(({ name }) => !/promise|pipe|device|GiB|itself/.test(name)))(
    'as the other model: $name',
    async ({ name, make }) => {
      const own = newFolder(folder, `bad-${name.replace(/\W+/g, '-')}`);
      const out = newFolder(folder, `bad-out-${name.replace(/\W+/g, '-')}`);
      make(own);
      const outcome = await outcomeOf(() =>
        operate({
          method: t3,
          parameters: {},
          model: expertA,
          output: join(out, 'x.onnx'),
          merging: { others: [join(own, 'model.onnx')], names: ['expert', 'generalist'] },
          threads: 1,
        }),
      );
      expect([5, 6, 7]).toContain(outcome.code);
      expect(outcome.stderr).not.toMatch(/^\s+at /m);
      expect(filesBelow(out)).toEqual([]);
    },
  );
});

test.each(['external in many files', 'Constant nodes', 'function with constants', 'typed fields'])(
  'T3 and a mean of a model and itself, %s',
  async (name) => {
    const variant = variants.find((v) => v.name === name);
    const path = variant?.write(newFolder(folder, `v-${name.replaceAll(' ', '-')}`)) ?? '';
    const data = inRepository('fixtures/resnet8/test.yaml');
    for (const args of [
      ['linear', resnet8, path],
      ['linear', path, resnet8],
      ['t3', '--generalist', path, '--expert', resnet8],
      ['t3', '--generalist', resnet8, '--expert', path, '--mode', 'sample'],
    ]) {
      const out = join(folder, 'variant.onnx');
      const result = await json(
        'merge',
        ...args,
        '-o',
        out,
        '--force',
        '--eval',
        data,
        '--sweep',
        '0',
      );
      expect(accuracies(result, 'merged')).toEqual([0.935]);
    }
  },
  120_000,
);
