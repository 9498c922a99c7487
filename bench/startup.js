/**
 * How long a user waits for commands that compute nothing.
 *
 *   npm run build && node bench/startup.js
 */
import { fileURLToPath } from 'node:url';
import { median, resect, runNode } from './support/measure.js';
import { publish, table } from './support/report.js';

const RUNS = 9;
const small = fileURLToPath(
  new URL('../fixtures/mlp-regression/mlp-regression.onnx', import.meta.url),
);
const commands = {
  'resect --help': ['--help'],
  'resect sparsify --help': ['sparsify', '--help'],
  'resect inspect mlp-regression.onnx': ['inspect', small],
};

const runs = new Map(Object.keys(commands).map((name) => [name, []]));
// One more round than counted, for the files to be in memory.
for (let i = 0; i <= RUNS; i++) {
  for (const [name, args] of Object.entries(commands)) {
    const run = await runNode(resect, args);
    if (i > 0) runs.get(name).push(run);
  }
}
const milliseconds = (values) => `${Math.round(1000 * median(values))} ms`;
publish(
  'startup',
  'Startup',
  [
    table(
      [...runs].map(([command, of]) => ({
        command,
        wall: milliseconds(of.map((r) => r.wall)),
        CPU: milliseconds(of.map((r) => r.cpu)),
      })),
    ),
  ],
  `medians of ${RUNS} runs, each a process of its own, in turn, after one that does not count.`,
);
