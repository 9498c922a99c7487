import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CompressLayer } from '../../src/methods/compress/layers.js';
import { compress } from '../../src/methods/compress/method.js';
import { makeTensor, readModel, serializeModel } from '../../src/onnx/index.js';
import { type OperationResult, operate } from '../../src/recipe/operation.js';
import { feedsOf } from '../methods/compress/support.js';
import {
  expectCleanFailure,
  filesBelow,
  inRepository,
  inTurns,
  json,
  newFolder,
  type Outcome,
  outcomeOf,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { resnet8 } from '../support/fixtures.js';
import { refusesBadModels } from '../support/refuses-bad-models.js';
import { runOnce } from '../support/run.js';

const folder = scratchFolder();
const path = (name: string) => join(folder, name);
const vgg7 = inRepository('fixtures/vgg7/vgg7.onnx');
const folded = inRepository('fixtures/resnet8/resnet8-folded.onnx');

type Result = OperationResult<CompressLayer>;

const command = (name: string, ...flags: string[]): string[] => [
  ...['compress', resnet8.model, '-o', path(name), '--force', '--threads', '1'],
  ...flags,
];
const compressed = async (name: string, ...flags: string[]): Promise<Result> =>
  (await json(command(name, ...flags))) as Result;

const accuracyOf = ({ comparison }: Result) => comparison?.metrics?.after.accuracy ?? Number.NaN;

describe('formats', () => {
  const eighths = ['--bits', '8', '--eval', resnet8.test];
  const runs: [name: string, flags: string[], accuracy: number, size: number][] = [
    ['qdq', [...eighths, '--format', 'qdq'], 0.92, 0.33],
    ['weight-only', [...eighths, '--format', 'weight-only'], 0.93, 0.33],
    [
      'weight-only-4',
      ['--bits', '4', '--format', 'weight-only', '--eval', resnet8.test],
      0.915,
      0.25,
    ],
    ['float', [...eighths, '--format', 'float'], 0.93, 1.1],
    ['float-12', ['--bits', '12', '--edge-bits', '12', '--eval', resnet8.test], 0.93, 1.1],
    ['qdq-pruned', [...eighths, '--ratio', '0.25'], 0.87, 0.25],
  ];
  const results = new Map<string, Result>();
  beforeAll(async () => {
    await inTurns(runs, async ([name, flags]) => {
      results.set(name, await compressed(`${name}.onnx`, ...flags));
    });
  }, 120_000);

  test.each(runs)(
    '%s: accurate, as small as it says, and run by any session',
    async (name, _, accuracy, size) => {
      const result = results.get(name)!;
      expect(accuracyOf(result)).toBeGreaterThan(accuracy);
      const { before, after } = result.comparison!.size;
      expect(after.bytes / before.bytes).toBeLessThan(size);
      expect(after.bytes).toBe(readFileSync(path(`${name}.onnx`)).length);
      expect(result.layers.every(({ bits }) => bits !== undefined)).toBe(true);
      const { proto } = await readModel(path(`${name}.onnx`));
      for (const optimize of [false, true]) {
        const { logits } = await runOnce(path(`${name}.onnx`), feedsOf(proto), { optimize });
        expect(logits.dims).toEqual([2, 10]);
      }
    },
  );

  test('integers are for 2 to 8 bits, and the first layer and the last have 8', () => {
    const bits = results.get('weight-only-4')!.layers.map((layer) => layer.bits);
    expect(bits).toEqual([8, ...Array(8).fill(4), 8]);
  });

  test.each(['qdq', 'weight-only'])('%s is not compressed again', async (name) => {
    const outcome = await resect([
      'compress',
      path(`${name}.onnx`),
      '-o',
      path('again.onnx'),
      '--ratio',
      '0.5',
    ]);
    expectCleanFailure(outcome, 5, /quantised already/);
    expect(existsSync(path('again.onnx'))).toBe(false);
  });
});

test('nothing asked: the same bytes, but for the provenance', async () => {
  const result = await compressed('same.onnx', '--ratio', '0', '--bits', '32', '--no-provenance');
  expect(sha256(path('same.onnx'))).toBe(sha256(resnet8.model));
  expect(result.notes.join(' ')).toMatch(/Nothing changed/);
  await compressed('stamped.onnx', '--ratio', '0', '--bits', '32');
  const diff = await resect(['diff', resnet8.model, path('stamped.onnx')]);
  expect(diff.stdout).not.toMatch(/conv|fc/);
});

test('the same command writes the same bytes', async () => {
  await inTurns(['first.onnx', 'second.onnx'], (name) =>
    compressed(name, '--ratio', '0.5', '--bits', '4', '--edge-bits', '4'),
  );
  expect(sha256(path('second.onnx'))).toBe(sha256(path('first.onnx')));
});

test('ratios and bits of layers by glob; the last that matches counts', async () => {
  const { layers } = await compressed(
    'some.onnx',
    ...['--ratio', '0.5', '--layer-ratio', '*block3*=0', '--layer-ratio', '*block3/a*=0.25'],
    ...['--bits', '8', '--layer-bits', '*block1*=5', '--layer-bits', '*fc*=32', '--align', '1'],
    ...['--format', 'float'],
  );
  const of = (name: string) => layers.find((layer) => layer.name.includes(name))!;
  expect(of('block2/a')).toMatchObject({ channels: { before: 32, after: 16 }, bits: 8 });
  expect(of('block3/a')).toMatchObject({ channels: { before: 64, after: 48 } });
  expect(of('block3/b')).toMatchObject({ channels: { before: 64, after: 64 }, kept: 'ratio 0' });
  expect(of('block1/a')).toMatchObject({ bits: 5 });
  expect(of('fc').bits).toBeUndefined();
});

test('only some layers', async () => {
  const { layers } = await compressed(
    'a.onnx',
    '--ratio',
    '0.5',
    '--bits',
    '8',
    '--include',
    '*block2/a*',
  );
  const changed = layers.filter(({ bits }) => bits !== undefined).map(({ name }) => name);
  expect(changed).toEqual(['/block2/a/conv/Conv']);
  const cut = layers.filter(({ channels }) => channels && channels.after < channels.before);
  expect(cut.map(({ name }) => name)).toEqual(['/block2/a/conv/Conv']);
});

test('methods: what goes by statistics is best, and data make up for folded norms', async () => {
  const runs = [
    [vgg7],
    [vgg7, '--method', 'neuron-merging'],
    [vgg7, '--method', 'udfc'],
    [vgg7, '--method', 'drop'],
    [folded],
    [folded, '--calib', resnet8.train, '--samples', '64'],
  ];
  const results = await inTurns(runs, async ([model, ...flags]) => {
    const output = path(`${runs.findIndex((run) => run.join() === [model, ...flags].join())}.onnx`);
    const half = ['-o', output, '--ratio', '0.5', '--align', '1', '--eval', resnet8.test];
    return (await json(['compress', model, ...half, ...flags, '--threads', '1'])) as Result;
  });
  const [gauss, merged, udfc, drop, blind, seen] = results.map(accuracyOf);
  expect(gauss).toBeGreaterThan(Math.max(udfc, merged) + 0.05);
  expect(udfc).toBeGreaterThan(drop);
  expect(seen).toBeGreaterThan(blind + 0.2);
  const notes = results.map((result) => result.notes.join(' '));
  expect(notes[4]).toMatch(/Few convolutions have a BatchNormalization.*--calib/);
  expect(notes[5]).not.toMatch(/Few convolutions/);
  const [, , , , without, data] = results;
  expect(data.calibration).toMatchObject({ samples: 64 });
  for (const { measuredError } of data.layers) expect(measuredError).toBeGreaterThanOrEqual(0);
  expect(without.layers.every(({ measuredError }) => measuredError === undefined)).toBe(true);
}, 60_000);

test('a dry run tells channels, bits and reasons, and writes nothing', async () => {
  const cwd = newFolder(folder, 'dry');
  const flags = ['--ratio', '0.5', '--bits', '4', '--dry-run'];
  const { code, stdout, stderr } = await resect(['compress', resnet8.model, ...flags], { cwd });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^\/block3\/a\/conv\/Conv .* 64 -> 32 +4$/m);
  expect(stdout).toMatch(/^\/fc\/Gemm +10 x 64 +10 +8$/m);
  expect(filesBelow(cwd)).toEqual([]);
});

test('reports', async () => {
  const reports = ['--report', path('r.md'), '--report', path('r.json')];
  const result = await compressed('told.onnx', '--ratio', '0.5', '--bits', '8', ...reports);
  expect(JSON.parse(readFileSync(path('r.json'), 'utf8'))).toEqual(result);
  const layer = result.layers.find(({ name }) => name === '/block3/a/conv/Conv');
  expect(layer).toMatchObject({
    channels: { before: 64, after: 32 },
    bits: 8,
    bytes: { before: 73728, after: expect.any(Number) },
    macs: { before: 903168, after: 225792 },
    condition: expect.any(Number),
    ridge: expect.any(Number),
    predictedError: expect.any(Number),
  });
  const markdown = readFileSync(path('r.md'), 'utf8');
  expect(markdown).toMatch(/MMACs.*condition.*ridge.*channels stay/);
  expect(markdown).toMatch(/\/block3\/a\/conv\/Conv.*64 -> 32/);
});

test('a gate that fails leaves nothing, unless it is to be kept', async () => {
  const own = newFolder(folder, 'gate');
  const args = [
    ...['compress', resnet8.model, '-o', join(own, 'gated.onnx'), '--ratio', '0.9'],
    ...['--eval', resnet8.test, '--max-drop', 'accuracy=0.01'],
  ];
  expect(await resect(args)).toMatchObject({ code: 4 });
  expect(filesBelow(own)).toEqual([]);
  expect(await resect([...args, '--keep-failed'])).toMatchObject({ code: 4 });
  expect(filesBelow(own)).toEqual(['gated.onnx']);
});

describe('refused', () => {
  const bad: [name: string, flags: string[], code: number, says: RegExp][] = [
    ['all channels', ['--ratio', '1'], 2, /--ratio/],
    ['less than none', ['--ratio', '-1'], 2, /--ratio/],
    ['a ratio that is no number', ['--ratio', 'NaN'], 2, /--ratio/],
    ['one bit', ['--bits', '1'], 2, /--bits/],
    ['17 bits', ['--bits', '17'], 2, /--bits/],
    ['half a bit', ['--bits', '8.5'], 2, /--bits/],
    ['a rule without a number', ['--layer-ratio', 'conv'], 2, /--layer-ratio/],
    ['a rule of all channels', ['--layer-ratio', 'conv=1'], 2, /--layer-ratio/],
    ['bits of a layer', ['--layer-bits', 'conv=1'], 2, /--layer-bits/],
    ['12 bits as integers', ['--bits', '12', '--format', 'weight-only'], 2, /--format float/],
    ['a scale of UDFC with gauss', ['--bits', '8', '--quant-scale'], 2, /--method udfc/],
    ['bits that are to be found without a limit', ['--bits', 'auto'], 2, /--max-drop/],
    ['an alignment of none', ['--align', '0'], 2, /--align/],
    ['another method', ['--method', 'magic'], 2, /--method/],
  ];
  const outcomes = new Map<string, Outcome>();
  beforeAll(async () => {
    await inTurns(bad, async ([name, flags]) => {
      outcomes.set(name, await resect(command('refused.onnx', ...flags)));
    });
  }, 60_000);
  test.each(bad)('%s', (name, _, code, says) => {
    expectCleanFailure(outcomes.get(name)!, code, says);
    expect(existsSync(path('refused.onnx'))).toBe(false);
  });
});

const operated = (
  model: string,
  name: string,
  parameters: Parameters<typeof compress.parameters.parse>[0],
) =>
  outcomeOf(() =>
    operate({
      method: compress,
      parameters: parameters as { ratio?: number; bits?: number },
      model,
      output: path(name),
      threads: 1,
    }),
  );

describe('damaged parameters', () => {
  const damage: [name: string, tensor: string, at: number, value: number, says: RegExp][] = [
    [
      'NaN in a filter',
      'block2.a.conv.weight',
      7,
      Number.NaN,
      /block2.a.conv.*NaN|NaN.*block2.a.conv/,
    ],
    ['infinity in a matrix', 'fc.weight', 0, Number.POSITIVE_INFINITY, /fc.*Infinity|Infinity.*fc/],
    ['NaN in a mean', 'block1.a.bn.running_mean', 3, Number.NaN, /block1.a/],
    ['a negative variance', 'block3.a.bn.running_var', 5, -1, /negative variance.*block3.a/],
  ];
  test.each(damage)('%s', async (name, tensor, at, value, says) => {
    const model = await readModel(resnet8.model);
    const stored = model.proto.graph!.initializer.find((t) => t.name === tensor);
    if (!stored) throw new Error(`no ${tensor}`);
    const values = new Float32Array(new Uint8Array(stored.rawData!).buffer);
    values[at] = value;
    Object.assign(
      stored,
      makeTensor({
        name: tensor,
        dtype: 'float32',
        shape: stored.dims!.map(Number),
        bytes: new Uint8Array(values.buffer),
      }),
    );
    const file = path(`${name.replace(/\W+/g, '-')}.onnx`);
    writeFileSync(file, await serializeModel(model));
    const before = sha256(file);
    for (const parameters of [
      { ratio: 0.5 },
      { bits: 8 },
      { ratio: 0.5, bits: 4, format: 'float' },
    ]) {
      expectCleanFailure(await operated(file, 'damaged.onnx', parameters), 5, says);
      expect(existsSync(path('damaged.onnx'))).toBe(false);
    }
    expect(sha256(file)).toBe(before);
  });
});

test('the input is not written to, nor over', async () => {
  const before = sha256(vgg7);
  expect(await operated(vgg7, 'vgg.onnx', { ratio: 0.5, bits: 8 })).toMatchObject({ code: 0 });
  const over = await resect(['compress', vgg7, '-o', vgg7, '--force', '--ratio', '0.5']);
  expectCleanFailure(over, 7, /input|same file/);
  expect(sha256(vgg7)).toBe(before);
});

refusesBadModels(compress, { ratio: 0.5, bits: 8 }, ['--ratio', '0.5', '--bits', '8']);
