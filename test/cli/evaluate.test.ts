import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expectCleanFailure, flat, json, output, resect, scratchFolder } from '../support/cli.js';
import { gptMoby, mlpRegression, resnet8 } from '../support/fixtures.js';

const folder = scratchFolder();
const evaluateResnet = ['evaluate', resnet8.model, '--data', resnet8.test];

interface Result {
  task: string;
  metrics: Record<string, number>;
  data: { samples: number };
  gates: { gate: string; passed: boolean }[];
}
const result = async (args: string[]) => (await json(args)) as Result;

test('a classifier has the accuracy that it was trained to', async () => {
  const text = await output(evaluateResnet);
  expect(text).toMatch(/^accuracy +93\.50 %$/m);
  expect(flat(text)).toMatch(/Measured on 2000 examples of .*test\.yaml \(classification\)/);
});

test('a language model has the perplexity that it was trained to', async () => {
  expect(await output(['evaluate', gptMoby.model, '--data', gptMoby.heldout])).toMatch(
    /^perplexity +17\.80$/m,
  );
});

test('a regression has the errors that it was trained to', async () => {
  const { task, metrics } = await result([
    'evaluate',
    mlpRegression.model,
    '--data',
    mlpRegression.test,
  ]);
  expect(task).toBe('regression');
  expect(metrics.rmse).toBeCloseTo(0.659, 3);
  expect(metrics.r2).toBeCloseTo(0.525, 3);
});

test('against itself a model agrees with itself', async () => {
  const evaluation = await json([...evaluateResnet, '--against', resnet8.model, '--samples', '50']);
  expect(evaluation).toMatchObject({
    comparison: { fidelity: { agreement: 1, kl: 0, relativeError: 0 } },
  });
});

test('samples are drawn by the seed', async () => {
  const drawn = (seed: string) => result([...evaluateResnet, '--samples', '100', '--seed', seed]);
  const [a, b, c] = [await drawn('1'), await drawn('1'), await drawn('2')];
  expect(a.data.samples).toBe(100);
  expect(a.metrics).toEqual(b.metrics);
  expect(a.metrics).not.toEqual(c.metrics);
});

test('slices: by label, and by a list', async () => {
  const indices = join(folder, 'first.txt');
  writeFileSync(
    indices,
    Array.from({ length: 2000 }, (_, i) => i)
      .slice(0, 30)
      .join('\n'),
  );
  const seven = await result([...evaluateResnet, '--where', 'label=7']);
  const listed = await result([...evaluateResnet, '--indices', indices]);
  expect(seven.data.samples).toBe(200);
  expect(listed.data.samples).toBe(30);
});

test('gates: one that holds', async () => {
  const { gates } = await result([
    ...evaluateResnet,
    '--min',
    'accuracy=0.93',
    '--max-size',
    '1MB',
  ]);
  expect(gates.map(({ passed }) => passed)).toEqual([true, true]);
});

test.each([
  ['a metric that is too low', ['--min', 'accuracy=0.94']],
  ['a metric that is too high', ['--min', 'loss=0.1']],
  ['a file that is too large', ['--max-size', '300KB']],
  ['no speedup', ['--min-speedup', '1000', '--against', resnet8.model]],
])('gates: %s', async (_, gate) => {
  const { code, stdout } = await resect([...evaluateResnet, '--samples', '500', ...gate]);
  expect(code).toBe(4);
  expect(stdout).toMatch(new RegExp(`^FAILED: ${gate[0]} `, 'm'));
});

test('reports are written, too', async () => {
  const [md, jsonFile] = [join(folder, 'report.md'), join(folder, 'report.json')];
  await output([...evaluateResnet, '--quiet', '--report', md, '--report', jsonFile]);
  expect(readFileSync(md, 'utf8')).toMatch(/^\| accuracy \| 93\.50 % \|$/m);
  expect(JSON.parse(readFileSync(jsonFile, 'utf8'))).toMatchObject({
    metrics: { accuracy: 0.935 },
  });
});

test('a model that the runtime refuses is an unsupported model, not bad data', async () => {
  const { model } = resnet8;
  const proto = Buffer.from(readFileSync(model));
  const custom = join(folder, 'custom.onnx');
  // The last Relu becomes an operator that nobody knows.
  proto.write('Rexu', proto.lastIndexOf('Relu', proto.indexOf('GlobalAveragePool')));
  writeFileSync(custom, proto);
  const outcome = await resect(['evaluate', custom, '--data', resnet8.test]);
  expectCleanFailure(outcome, 5, /refuses.*custom\.onnx.*Rexu/);
});
