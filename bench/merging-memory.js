/**
 * Time and memory of merging files: two models of 3 GB, and two of 100 MB beside copying as many bytes.
 *
 *   npm run build && node bench/merging-memory.js [--rounds 5]
 */
import { execFileSync } from 'node:child_process';
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeLargeModel } from './support/large-model.js';
import { median, resect, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, seconds, table, times } from './support/report.js';

const { values: flags } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } });

/** Merges of two large models; the first is the base where one is needed. */
async function large(folder) {
  const [a, b] = ['a', 'b'].map((name) => join(folder, `${name}.onnx`));
  const bytes = writeLargeModel(a, { seed: 3 });
  writeLargeModel(b, { seed: 4 });
  const out = join(folder, 'out.onnx');
  const commands = {
    linear: ['linear', a, b],
    slerp: ['slerp', a, b],
    ties: ['ties', b, '--base', a],
    'ties, --trim model': ['ties', b, '--base', a, '--trim', 'model'],
    dare: ['dare', b, '--base', a],
  };
  const rows = [];
  for (const [merge, args] of Object.entries(commands)) {
    const { wall, cpu, peak } = await runNode(resect, ['merge', ...args, '-o', out, '--quiet']);
    for (const file of [out, `${out}.data`]) rmSync(file);
    rows.push({ merge, wall: seconds(wall), CPU: seconds(cpu), 'peak memory': megabytes(peak) });
    console.error(merge);
  }
  return { bytes, rows };
}

/** A linear merge of two models of 100 MB, and `cp` of both, in turns. */
async function small(folder, rounds) {
  const [a, b] = ['c', 'd'].map((name) => join(folder, `${name}.onnx`));
  const bytes = writeLargeModel(a, { seed: 3, layers: 6, inner: 1024 });
  writeLargeModel(b, { seed: 4, layers: 6, inner: 1024 });
  const script = new URL('support/merge-linear.js', import.meta.url).pathname;
  const out = join(folder, 'merged.onnx');
  const spent = { merge: [], inside: [], copy: [] };
  for (let round = 0; round <= rounds; round++) {
    const merged = await runNode(script, [a, b, out]);
    const start = performance.now();
    for (const name of [a, b]) execFileSync('cp', [`${name}.data`, join(folder, 'copy')]);
    execFileSync('sync', [join(folder, 'copy')]);
    const copied = (performance.now() - start) / 1000;
    rmSync(out);
    if (round === 0) continue; // Files are not in memory yet.
    spent.merge.push(merged.wall);
    spent.inside.push(Number(merged.stdout));
    spent.copy.push(copied);
  }
  return {
    bytes: bytes || statSync(a).size,
    ...Object.fromEntries(Object.entries(spent).map(([k, v]) => [k, median(v)])),
  };
}

await withFolder(async (folder) => {
  const { bytes, rows } = await large(folder);
  for (const name of ['a', 'b']) rmSync(join(folder, `${name}.onnx.data`));
  const rounds = Number(flags.rounds);
  const { bytes: smaller, merge, inside, copy } = await small(folder, rounds);
  publish(
    'merging-memory',
    'Time and memory of merging files',
    [
      `Two models of ${megabytes(bytes)} each: 48 MatMul layers of 64 MiB, weights in a file of their own. The command line as it is, verification of what was written included.`,
      table(rows),
      `Two models of ${megabytes(smaller)} each, merged linearly by the library (read, pair, merge, write and sync): ${seconds(inside)}, ${times(inside / copy)} the ${seconds(copy)} that \`cp\` of both and a sync take; with the start of Node ${seconds(merge)}, ${times(merge / copy)}. Aim: at most 2x.`,
    ],
    `each large merge once, as a process of its own; peak is its resident memory, mapped files included. The small ones ${rounds} times in turns with cp, medians, files in the page cache.`,
  );
});
