/**
 * Time and memory of `resect compress` on a network of 11.7 M parameters, as a user starts it.
 *
 *   npm run build && node bench/compress-resnet18.js
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { resect, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, seconds, table } from './support/report.js';
import { writeResNet18 } from './support/resnet18.js';

const aims = { wall: 15, peak: 1e9 };
const commands = [
  ['--ratio', 0.5, '--bits', 8],
  ['--ratio', 0.5, '--bits', 8, '--method', 'udfc'],
  ['--ratio', 0.5, '--bits', 8, '--method', 'neuron-merging'],
  ['--ratio', 0.5, '--bits', 8, '--method', 'drop'],
  ['--ratio', 0.5],
  ['--bits', 8],
  ['--bits', 4, '--format', 'weight-only'],
];

await withFolder(async (folder) => {
  const model = join(folder, 'resnet18.onnx');
  const bytes = await writeResNet18(model);
  const output = join(folder, 'out.onnx');
  const rows = [];
  for (const given of commands) {
    const args = ['compress', model, '-o', output, ...given, '--force', '--threads', 1, '--json'];
    const { wall, cpu, peak, stdout } = await runNode(resect, args);
    const { comparison } = JSON.parse(stdout);
    const { before, after } = comparison.latency;
    rows.push({
      'resect compress': given.join(' '),
      wall: seconds(wall),
      CPU: seconds(cpu),
      'peak memory': megabytes(peak),
      within: wall < aims.wall && peak < aims.peak ? 'yes' : 'NO',
      file: megabytes(statSync(output).size),
      'one image': `${Math.round(before.median)} -> ${Math.round(after.median)} ms`,
    });
  }
  publish(
    'compress-resnet18',
    'Compression of ResNet-18: time and memory',
    [
      `ResNet-18 for 224 x 224 images, ${megabytes(bytes)}, 11.7 M parameters: random weights, with statistics in its BatchNormalizations that they have on noise. Without data; every channel group may be pruned. "Within": less than ${seconds(aims.wall)} and ${megabytes(aims.peak)}.`,
      table(rows),
    ],
    'bench/compress-resnet18.js; each command once, one thread, as a process of its own; its time is of all it does: reading, repair, writing, verification in ONNX Runtime and the comparison on random inputs.',
  );
});
