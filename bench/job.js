/**
 * A whole `resect sparsify`, as a user starts it, against a bare script that only runs the model on
 * the same calibration data and copies the file.
 *
 *   npm run build && node bench/job.js
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { uniform, writeInt64Npy } from './support/arrays.js';
import { median, resect, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, seconds, table, times } from './support/report.js';
import { shape, writeTransformer } from './support/transformer.js';

const SAMPLES = 128;
const TOKENS = 512;
const PAIRS = 3;
const script = (name) => fileURLToPath(new URL(`support/${name}.js`, import.meta.url));

/** The median of each thing measured in several runs. */
const typical = (runs) =>
  Object.fromEntries(['wall', 'cpu', 'peak'].map((key) => [key, median(runs.map((r) => r[key]))]));

await withFolder(async (folder) => {
  const model = join(folder, 'model.onnx');
  const calib = join(folder, 'ids.npy');
  const bytes = writeTransformer(model);
  const random = uniform(2);
  const ids = Float64Array.from({ length: SAMPLES * TOKENS }, () => random() * shape.vocabulary);
  writeInt64Npy(
    calib,
    [SAMPLES, TOKENS],
    BigInt64Array.from(ids, (id) => BigInt(Math.floor(id))),
  );

  const bare = (threads) =>
    runNode(script('bare-run'), [model, calib, TOKENS, threads, join(folder, 'copy.onnx')]);
  const job = (threads, mode) => {
    const output = join(folder, 'sparse.onnx');
    const flags = ['--sparsity', 0.6, '--calib', calib, '--calib-mode', mode];
    const run = ['--threads', threads, '--samples', SAMPLES, '--force', '--quiet'];
    return runNode(resect, ['sparsify', model, '-o', output, ...flags, ...run]);
  };

  const totals = [];
  const stages = [];
  for (const threads of [1, 2]) {
    const pairs = [];
    for (let i = 0; i < PAIRS; i++)
      pairs.push({ bare: await bare(threads), job: await job(threads, 'oneshot') });
    const least = typical(pairs.map((p) => p.bare));
    const addRow = (what, { wall, cpu, peak }, ratio) =>
      totals.push({
        threads,
        what,
        wall: seconds(wall),
        'of bare': times(ratio('wall')),
        CPU: seconds(cpu),
        'of bare, CPU': times(ratio('cpu')),
        'peak memory': megabytes(peak),
      });
    addRow('bare runtime', least, () => 1);
    addRow('sparsify, oneshot', typical(pairs.map((p) => p.job)), (key) =>
      median(pairs.map((p) => p.job[key] / p.bare[key])),
    );
    const sequential = await job(threads, 'sequential');
    addRow('sparsify, sequential', sequential, (key) => sequential[key] / least[key]);
    for (const mode of ['oneshot', 'sequential']) {
      const parameters = JSON.stringify({ sparsity: 0.6, calibMode: mode });
      const output = join(folder, `${mode}-${threads}.onnx`);
      const args = [model, calib, output, threads, parameters];
      const used = Object.entries(JSON.parse((await runNode(script('stages'), args)).stdout));
      const cells = used.map(([stage, { wall, cpu }]) => [
        stage,
        `${seconds(wall)} (${seconds(cpu)})`,
      ]);
      stages.push({ threads, mode, ...Object.fromEntries(cells) });
    }
  }
  const order = { threads: 0, mode: '', open: '', calibrate: '', prune: '', propagate: '' };
  publish(
    'job',
    'A whole sparsify against the bare runtime',
    [
      `Transformer of ${megabytes(bytes)} (${shape.blocks} blocks x ${shape.width}, all-MiniLM-L6-v2's shapes, random weights); ${SAMPLES} samples of ${TOKENS} tokens; 60 % sparse, Wanda masks refined by DSnoT.`,
      table(totals),
      'Wall clock (CPU) of the stages of one more run, inside the process. A stage counts from its first sign of progress to that of the next: `open` holds reading, hashing, counting zeros and opening the first session; `prune` also the writing of the output.',
      table(stages.map((row) => ({ ...order, ...row }))),
    ],
    `each run is a process of its own; bare and oneshot in turn, ${PAIRS} pairs, medians, ratios of neighbours; sequential once. The bare script runs the same samples one by one in onnxruntime-node with its default options and as many threads, and copies the file. CPU is user and system time of the process, peak its resident memory.`,
  );
});
