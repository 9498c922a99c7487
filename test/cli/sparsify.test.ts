import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  flat,
  inTurns,
  json,
  newFolder,
  output,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { gptMoby, resnet8 } from '../support/fixtures.js';
import { weightsOf, zeroFraction } from '../support/weights.js';

const folder = scratchFolder();
const calib = ['--calib', resnet8.train, '--samples', '64'];

interface Result {
  layers: { name: string; status: string; sparsity?: { before: number; after: number } }[];
  output?: { files: string[] };
  notes: string[];
  comparison: {
    metrics?: { after: { accuracy: number } };
    fidelity: { relativeError: number };
    size: { before: { zeros: number; bytes: number }; after: { zeros: number; bytes: number } };
  };
}
const sparsify = async (name: string, flags: string[]): Promise<Result> =>
  (await json([
    'sparsify',
    resnet8.model,
    ...['-o', join(folder, name), '--force', ...flags],
  ])) as Result;

describe('each mask, refined or not', () => {
  const half = ['--sparsity', '0.5', '--eval', resnet8.test];
  const methods: [name: string, flags: string[], accuracy: number][] = [
    ['magnitude, no data', ['--init', 'magnitude', '--refine', 'none'], 0.5],
    ['magnitude, refined', ['--init', 'magnitude', '--refine', 'dsnot', ...calib], 0.65],
    ['wanda, no refinement', ['--init', 'wanda', '--refine', 'none', ...calib], 0.3],
    ['wanda, refined', ['--init', 'wanda', '--refine', 'dsnot', ...calib], 0.65],
    ['sparsegpt mask', ['--init', 'sparsegpt', '--refine', 'none', ...calib], 0.3],
    ['sparsegpt mask, refined', ['--init', 'sparsegpt', '--refine', 'dsnot', ...calib], 0.65],
    ['sparsegpt, updated', ['--init', 'sparsegpt', '--update', ...calib], 0.85],
    ['bias corrected', ['--bias-correct', ...calib], 0.7],
    ['in one pass', ['--calib-mode', 'oneshot', ...calib], 0.7],
    ['as the authors do', ['--threshold-unit', 'sample', '--accept', 'always', ...calib], 0.05],
    ['same sign', ['--same-sign', '--var-power', '0', '--cycles', '10', ...calib], 0.4],
  ];
  const results = new Map<string, Result>();
  const file = (name: string) => join(folder, `${name.replace(/\W+/g, '-')}.onnx`);

  beforeAll(async () => {
    await inTurns(methods, async ([name, flags]) => {
      const written = ['-o', file(name), ...half, ...flags];
      results.set(name, (await json(['sparsify', resnet8.model, ...written])) as Result);
    });
  }, 180_000);

  test.each(methods)('%s', async (name, flags, accuracy) => {
    const { layers, comparison } = results.get(name)!;
    expect(layers).toHaveLength(10);
    expect(comparison.metrics?.after.accuracy).toBeGreaterThan(accuracy);
    const [before, after] = [resnet8.model, file(name)];
    const w = await weightsOf(after, 'block3.b.conv.weight');
    expect(zeroFraction(w)).toBeCloseTo(0.5, 2);
    // What is kept is kept to the last bit, unless an update was asked for.
    const dense = await weightsOf(before, 'block3.b.conv.weight');
    const touched = w.filter((v, i) => v !== 0 && !Object.is(v, dense[i]));
    expect(touched.length > 0).toBe(flags.includes('--update'));
  });

  test('a mask that is chosen by data is better than one that is not', () => {
    const error = (name: string) => results.get(name)!.comparison.fidelity.relativeError;
    expect(error('wanda, refined')).toBeLessThan(error('wanda, no refinement'));
    expect(error('sparsegpt, updated')).toBeLessThan(error('sparsegpt mask'));
  });
});

test('n:m: so many zeros in each group, and no group where none fit', async () => {
  const { layers } = await sparsify('2of4.onnx', ['--nm', '2:4', ...calib]);
  const stem = layers.find(({ name }) => name === '/stem/conv/Conv');
  expect(stem).toMatchObject({ status: 'skipped', reason: expect.stringContaining('9 inputs') });
  const w = await weightsOf(join(folder, '2of4.onnx'), 'fc.weight');
  for (let i = 0; i < w.length; i += 4)
    expect(w.slice(i, i + 4).filter((v) => v === 0)).toHaveLength(2);
});

test('only some layers, by glob', async () => {
  const flags = ['--sparsity', '0.5', '--include', '*block*', '--exclude', '*block1*', ...calib];
  const { layers } = await sparsify('some.onnx', flags);
  const changed = layers.filter(({ status }) => status === 'changed').map(({ name }) => name);
  expect(changed).toEqual([
    '/block2/shortcut/conv/Conv',
    '/block2/a/conv/Conv',
    '/block2/b/conv/Conv',
    '/block3/shortcut/conv/Conv',
    '/block3/a/conv/Conv',
    '/block3/b/conv/Conv',
  ]);
  expect(zeroFraction(await weightsOf(join(folder, 'some.onnx'), 'fc.weight'))).toBe(0);
});

test('the same command writes the same bytes', async () => {
  const flags = ['--sparsity', '0.5', ...calib];
  await sparsify('first.onnx', flags);
  await sparsify('second.onnx', flags);
  await sparsify('other.onnx', [...flags, '--seed', '1']);
  expect(sha256(join(folder, 'second.onnx'))).toBe(sha256(join(folder, 'first.onnx')));
  expect(sha256(join(folder, 'other.onnx'))).not.toBe(sha256(join(folder, 'first.onnx')));
});

test('the number of threads does not change what is pruned', async () => {
  for (const threads of ['1', '2'])
    await sparsify(`${threads}-threads.onnx`, [
      '--sparsity',
      '0.5',
      '--threads',
      threads,
      ...calib,
    ]);
  for (const tensor of ['stem.conv.weight', 'block3.b.conv.weight', 'fc.weight']) {
    const [one, two] = [
      await weightsOf(join(folder, '1-threads.onnx'), tensor),
      await weightsOf(join(folder, '2-threads.onnx'), tensor),
    ];
    expect(two).toEqual(one);
  }
});

test('provenance is in the model, or not', async () => {
  const flags = ['--sparsity', '0.5', ...calib];
  await sparsify('with.onnx', flags);
  await sparsify('without.onnx', [...flags, '--no-provenance']);
  const contains = (name: string) => readFileSync(join(folder, name)).includes('resect');
  expect(contains('with.onnx')).toBe(true);
  expect(contains('without.onnx')).toBe(false);
  const [inspection] = (await json(['inspect', join(folder, 'with.onnx')])) as {
    metadata: Record<string, string>;
  }[];
  expect(inspection.metadata).toMatchObject({
    'resect.input_sha256': sha256(resnet8.model),
    'resect.seed': '0',
    'resect.command': expect.stringContaining('"sparsity":0.5'),
  });
});

test('what was done before is remembered when a model is treated again', async () => {
  await sparsify('once.onnx', ['--sparsity', '0.3', ...calib]);
  const twice = join(folder, 'twice.onnx');
  await output(['sparsify', join(folder, 'once.onnx'), '-o', twice, '--sparsity', '0.6', ...calib]);
  const [inspection] = (await json(['inspect', twice])) as { metadata: Record<string, string> }[];
  expect(inspection.metadata).toMatchObject({
    'resect.1.command': expect.stringContaining('0.3'),
    'resect.command': expect.stringContaining('0.6'),
    'resect.input_sha256': sha256(join(folder, 'once.onnx')),
  });
});

describe('how weights are stored', () => {
  const flags = ['--sparsity', '0.9', '--init', 'magnitude', '--refine', 'none'];
  const dense = join(folder, 'dense.onnx');
  beforeAll(async () => {
    await sparsify('dense.onnx', flags);
  });

  test.each(['sparse', 'auto'])('%s: fewer bytes, the same outputs', async (store) => {
    const { comparison } = await sparsify(`${store}.onnx`, [...flags, '--store', store]);
    expect(comparison.size.after.bytes).toBeLessThan(comparison.size.before.bytes / 2);
    const against = ['--data', resnet8.test, '--samples', '100', '--against', dense];
    expect(await json(['evaluate', join(folder, `${store}.onnx`), ...against])).toMatchObject({
      comparison: { fidelity: { agreement: 1, relativeError: 0 } },
    });
  });

  test('outside: two files, the same model', async () => {
    const own = newFolder(folder, 'outside');
    const written = join(own, 'model.onnx');
    await output(['sparsify', resnet8.model, '-o', written, ...flags, '--external-data']);
    expect(await output(['diff', written, dense])).toBe('The models are the same.\n');
    const [inspection] = (await json(['inspect', written])) as { externalFiles: string[] }[];
    expect(inspection.externalFiles).toEqual([`${written}.data`]);
  });
});

test('a language model: the head stays as it is, unless asked for', async () => {
  const model = [
    'sparsify',
    gptMoby.model,
    ...['--calib', gptMoby.calib, '--samples', '4', '--sparsity', '0.5', '--refine', 'none'],
  ];
  const text = await output([...model, '-o', join(folder, 'gpt.onnx')]);
  expect(flat(text)).toMatch(/24 of 25 layers/);
  expect(flat(text)).toMatch(/skipped, output head .*: \/head\/MatMul/);
  const all = await output([...model, '-o', join(folder, 'gpt-all.onnx'), '--no-keep-head']);
  expect(flat(all)).toMatch(/25 of 25 layers/);
});

test('a dry run tells what would change, and why the rest would not', async () => {
  const outcome = await resect(['sparsify', resnet8.model, '--nm', '2:4', '--dry-run'], {
    cwd: newFolder(folder, 'dry'),
  });
  expect(outcome).toMatchObject({ code: 0, stderr: '' });
  expect(outcome.stdout).toMatch(/^\/fc\/Gemm +10 x 64$/m);
  expect(flat(outcome.stdout)).toMatch(/skipped, its 9 inputs .*: \/stem\/conv\/Conv/);
});
