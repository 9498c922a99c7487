/**
 * How long `resect ternarize` takes, and what it needs, on a transformer of 98 million weights.
 *
 *   npm run build && node bench/ternarize-time.js
 */
import { join } from 'node:path';
import { uniform, writeInt64Npy } from './support/arrays.js';
import { resect, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, seconds, table } from './support/report.js';
import { writeTransformer } from './support/transformer.js';

const shape = { blocks: 12, width: 768, inner: 3072, heads: 12, vocabulary: 16384 };
const samples = 32;
const tokens = 128;

/** Random token sequences, [samples, tokens]. */
function sequences() {
  const random = uniform(7);
  return BigInt64Array.from({ length: samples * tokens }, () =>
    BigInt(Math.floor(random() * shape.vocabulary)),
  );
}

await withFolder(async (folder) => {
  const model = join(folder, 'model.onnx');
  const data = join(folder, 'tokens.npy');
  const bytes = writeTransformer(model, shape);
  writeInt64Npy(data, [samples, tokens], sequences());
  const calib = ['--calib', data, '--samples', samples];
  const rows = [];
  for (const [name, flags] of [
    ['fit, no data', []],
    ['fit', ['--method', 'fit', '--oneshot', ...calib]],
    ['gptq-cd, --oneshot', ['--oneshot', ...calib]],
    ['gptq-cd', calib],
  ]) {
    process.stderr.write(`${name}\n`);
    const args = [
      'ternarize',
      model,
      '-o',
      join(folder, 'out.onnx'),
      '--force',
      ...flags,
      '--json',
    ];
    const { wall, cpu, peak, stdout } = await runNode(resect, args);
    const { layers, comparison } = JSON.parse(stdout);
    const changed = layers.filter(({ status }) => status === 'changed');
    rows.push({
      ' ': name,
      wall: seconds(wall),
      cpu: seconds(cpu),
      'codes alone': seconds(changed.reduce((sum, layer) => sum + layer.seconds, 0)),
      'peak memory': megabytes(peak),
      layers: changed.length,
      file: megabytes(comparison.size.after.bytes),
    });
  }
  publish(
    'ternarize-time',
    'How long ternarize takes',
    [
      table(rows),
      `Random weights in the shapes of a transformer: ${shape.blocks} blocks of width ${shape.width}, inner width ${shape.inner}, ${shape.vocabulary} tokens; ${megabytes(bytes)}. ${samples} sequences of ${tokens} tokens. Whole commands: reading, writing, checking kernels, and comparing with the original.`,
    ],
    'bench/ternarize-time.js; whole processes one after the other, two threads.',
  );
});
