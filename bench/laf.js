/**
 * Cost of Label-Agnostic Forgetting: a pair of its steps next to the same in torch, and whole runs of the
 * command on fixture A with its 4,000 images.
 *
 *   npm run build && RESECT_PYTHON=python3 node bench/laf.js [--repeat 5] [--rounds 3]
 *
 * RESECT_PYTHON must have torch and onnx; where it has not, the first part is left out.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median, resect, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, seconds, table, times } from './support/report.js';

const { values: flags } = parseArgs({
  options: {
    repeat: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
  },
});
const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const python = process.env.RESECT_PYTHON ?? 'python3';
const cases = {
  cnn: 'CNN of the golden vectors, 15 K parameters',
  resnet8: 'fixture A, 78 K parameters',
};

function reference(name, threads, ...more) {
  const args = ['--case', name, '--repeat', flags.repeat, '--threads', String(threads), ...more];
  const run = spawnSync(python, ['-W', 'ignore', path('laf-reference.py'), ...args], {
    encoding: 'utf8',
  });
  if (run.status !== 0) throw new Error(`${python} laf-reference.py: ${run.stderr}`);
  return JSON.parse(run.stdout);
}

async function pairs() {
  const hasTorch = spawnSync(python, ['-c', 'import torch, onnx']).status === 0;
  if (!hasTorch) return [`(${python} has no torch: pairs of steps were not compared.)`];
  const rows = [];
  let version = '';
  for (const [name, title] of Object.entries(cases)) {
    for (const threads of [1, 2]) {
      const ours = { cpu: [], wall: [] };
      const theirs = { cpu: [], wall: [] };
      const authors = { wall: [] };
      // In turns, so that both see the same machine.
      for (let round = 0; round < Number(flags.rounds); round++) {
        const other = reference(name, threads);
        authors.wall.push(...reference(name, threads, '--authors').wallSeconds);
        const { stdout } = await runNode(path('support/laf-step.js'), [
          name,
          flags.repeat,
          threads,
        ]);
        const own = JSON.parse(stdout);
        ours.cpu.push(...own.cpuSeconds);
        ours.wall.push(...own.wallSeconds);
        theirs.cpu.push(...other.cpuSeconds);
        theirs.wall.push(...other.wallSeconds);
        version = other.torch;
      }
      const ms = (list) => Number((1e3 * median(list)).toPrecision(3));
      rows.push({
        'pair of steps, 32 + 32 images': title,
        threads,
        'resect, ms': ms(ours.wall),
        'torch, ms': ms(theirs.wall),
        ratio: times(median(ours.wall) / median(theirs.wall)),
        "as the authors' code, ms": ms(authors.wall),
        'ratio to that': times(median(ours.wall) / median(authors.wall)),
        'resect, CPU ms': ms(ours.cpu),
        'torch, CPU ms': ms(theirs.cpu),
        'CPU ratio': times(median(ours.cpu) / median(theirs.cpu)),
      });
    }
  }
  return [table(rows), `torch ${version}.`];
}

async function wholeRuns() {
  const fixture = (name) => path(`../fixtures/resnet8/${name}`);
  const rows = [];
  for (const threads of [1, 2]) {
    for (const [name, more] of [
      ['LAF', []],
      ['LAF+R', ['--supervised-repair']],
    ]) {
      const { wall, cpu, peak } = await withFolder((folder) =>
        runNode(resect, [
          ...['unlearn', 'laf', fixture('resnet8.onnx'), '-o', join(folder, 'out.onnx')],
          ...['--forget', fixture('train.yaml'), '--where', 'label=3'],
          ...['--retain', fixture('train.yaml'), '--eval', fixture('test.yaml')],
          ...['--threads', threads, '--quiet', ...more],
        ]),
      );
      rows.push({
        'whole command, 4,000 images': name,
        threads,
        time: seconds(wall),
        CPU: seconds(cpu),
        'peak memory': megabytes(peak),
      });
    }
  }
  return table(rows);
}

publish(
  'laf',
  'Label-Agnostic Forgetting: cost',
  [...(await pairs()), await wholeRuns()],
  `bench/laf.js; pairs: ${flags.rounds} rounds in turns, ${flags.repeat} repeats of 10 pairs each, medians; CPU of the process. Whole runs: one each, with measuring before and after. Aim: under 10 minutes and 1.5 GB.`,
);
