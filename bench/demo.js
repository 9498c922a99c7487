// npm run demo: two small models 50 % and 60 % sparse, seven ways, one made ternary, one made small, one
// made to forget a class in two ways, two merged into one that merges itself.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { methods, operate } from '../dist/src/index.js';
import { forgettingTable } from '../dist/src/report/forgetting.js';
import { mergingTables } from '../dist/src/report/merging.js';
import { comparisonTable } from '../dist/src/report/operation.js';
import { textTable } from '../dist/src/report/table.js';
import { models, table } from './support/grid.js';

const patterns = [{ sparsity: 0.5 }, { sparsity: 0.6 }];
const progress = (text) => process.stderr.isTTY && process.stderr.write(`\r${text.padEnd(79)}\r`);

for (const model of models) console.log(`${await table(model, patterns, progress)}\n`);
console.log('Calibrated on 128 examples, measured on others. No weight was trained.\n');

const fixture = (name) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'resect-demo-'));
try {
  const ternary = await operate({
    method: methods.ternarize,
    parameters: {},
    model: fixture('vgg7/vgg7.onnx'),
    output: join(folder, 'ternary.onnx'),
    calib: fixture('vgg7/train.yaml'),
    eval: fixture('vgg7/test.yaml'),
    threads: 1,
  });
  console.log('Weights made {-1, 0, 1} times a scale, packed, after a look at 128 images\n');
  console.log(`${textTable(comparisonTable(ternary.comparison))}\n`);

  const small = await operate({
    method: methods.compress,
    parameters: { ratio: 0.3, bits: 8 },
    model: fixture('vgg7/vgg7.onnx'),
    output: join(folder, 'small.onnx'),
    eval: fixture('vgg7/test.yaml'),
    threads: 1,
  });
  console.log('30 % of the channels removed and the rest made int8, without any data\n');
  console.log(`${textTable(comparisonTable(small.comparison, small.macs))}\n`);

  const { comparison, notes } = await operate({
    method: methods.ssd,
    parameters: { alpha: 'auto' },
    model: fixture('resnet8/resnet8.onnx'),
    output: join(folder, 'forgetful.onnx'),
    forget: fixture('resnet8/train.yaml'),
    where: 'label=3',
    retain: fixture('resnet8/train.yaml'),
    eval: fixture('resnet8/test.yaml'),
    reference: fixture('resnet8-retrained/without-class-3.onnx'),
    threads: 1,
    progress: (stage, done, total) => progress(`${stage} ${done}/${total}`),
  });
  console.log('Dresses, class 3 of 10, forgotten by dampening; a network retrained without them\n');
  console.log(`${textTable(forgettingTable(comparison.forgetting))}\n\n${notes.at(-1)}\n`);

  const blind = await operate({
    method: methods.laf,
    parameters: {},
    model: fixture('resnet8/resnet8.onnx'),
    output: join(folder, 'blind.onnx'),
    forget: fixture('resnet8/train.yaml'),
    where: 'label=3',
    retain: fixture('resnet8/train.yaml'),
    eval: fixture('resnet8/test.yaml'),
    reference: fixture('resnet8-retrained/without-class-3.onnx'),
    progress: (stage, done, total) => progress(`${stage} ${done}/${total}`),
  });
  console.log('The same by their representations, no label read (LAF)\n');
  console.log(`${textTable(forgettingTable(blind.comparison.forgetting))}\n`);

  const merging = (name) => fixture(`merging/${name}`);
  const merged = await operate({
    method: methods.t3,
    parameters: {},
    model: merging('expert-a.onnx'),
    output: join(folder, 'merged.onnx'),
    calib: merging('calib-fashion.yaml'),
    merging: {
      others: [merging('generalist.onnx')],
      names: ['expert for fashion', 'generalist'],
      sets: ['fashion', 'digits'].map((kind) => `${kind}=${merging(`test-${kind}.yaml`)}`),
      sweep: 5,
    },
    threads: 1,
  });
  console.log('An expert and a generalist in one model that merges itself for each batch (T3)\n');
  for (const each of mergingTables(merged.comparison.merging)) console.log(`${textTable(each)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(
  'Try it on your own model: npx resect sparsify --help (or ternarize, compress, unlearn ssd, unlearn laf, merge t3)',
);
