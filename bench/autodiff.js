/**
 * Cost of gradients: one step (forward, mean cross-entropy, gradients of all parameters, handed to
 * JavaScript) and the importance pass of Selective Synaptic Dampening, next to torch.
 *
 *   npm run build && RESECT_PYTHON=python3 node bench/autodiff.js [--repeat 5] [--rounds 3]
 *
 * RESECT_PYTHON must have torch and onnx: it also makes the two larger networks.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, table, times } from './support/report.js';

const { values: flags } = parseArgs({
  options: {
    repeat: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    case: { type: 'string', multiple: true },
  },
});
const cases = {
  'cnn-1': ['CNN, 20 K parameters, batch 1', 1.6],
  'cnn-16': ['CNN, batch 16', 1.6],
  'cnn-64': ['CNN, batch 64', 1.6],
  'resnet18-16': ['ResNet-18 for 32 x 32, batch 16', 1.6],
  'transformer-16': ['transformer, 4 layers of 256, batch 16 of 128', 1.0],
  'ssd-64': ['importances of 2,000 images, batch 64', 1.2],
  'ssd-1': ['importances of 2,000 images, each apart', 0.6],
};
const python = process.env.RESECT_PYTHON ?? 'python3';
const script = fileURLToPath(new URL('autodiff-reference.py', import.meta.url));
const worker = fileURLToPath(new URL('support/gradient-step.js', import.meta.url));

function reference(...args) {
  const run = spawnSync(python, ['-W', 'ignore', script, ...args], { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`${python} ${script}: ${run.stderr}`);
  return run.stdout;
}

await withFolder(async (folder) => {
  reference('--export', folder);
  const rows = [];
  let version = '';
  for (const name of flags.case ?? Object.keys(cases)) {
    const [title, aim] = cases[name];
    const sides = { ours: [], torch: [] };
    const peaks = { ours: [], torch: [], own: [] };
    // In turns, so that both see the same machine.
    for (let round = 0; round < Number(flags.rounds); round++) {
      const other = JSON.parse(
        reference('--case', name, '--repeat', flags.repeat, '--threads', '1'),
      );
      const { stdout, peak } = await runNode(worker, [name, folder, flags.repeat]);
      sides.torch.push(...other.cpuSeconds);
      sides.ours.push(...JSON.parse(stdout).cpuSeconds);
      peaks.torch.push(other.peakBytes);
      peaks.own.push(other.peakBytes - other.importedBytes);
      peaks.ours.push(peak);
      version = other.torch;
    }
    const [ours, torch] = [median(sides.ours), median(sides.torch)];
    rows.push({
      case: title,
      'resect, CPU ms': Number((1e3 * ours).toPrecision(3)),
      'torch, CPU ms': Number((1e3 * torch).toPrecision(3)),
      ratio: times(ours / torch),
      aim: times(aim),
      'resect, peak': megabytes(median(peaks.ours)),
      'torch, peak': megabytes(median(peaks.torch)),
      'less its import': megabytes(median(peaks.own)),
    });
  }
  publish(
    'autodiff',
    'Gradients, next to torch',
    [
      table(rows),
      `torch ${version}, one thread each; CPU time of the process, peak memory of the whole process.`,
    ],
    `bench/autodiff.js; ${flags.rounds} rounds in turns, ${flags.repeat} repeats each, medians. Gradients of ours are handed to JavaScript; torch keeps its own. The importance pass of ours decodes the images as well.`,
  );
});
