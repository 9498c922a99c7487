/**
 * Time and memory of commands on a model much larger than they should need.
 *
 *   npm run build && node bench/memory.js
 */
import { join } from 'node:path';
import { writeLargeModel } from './support/large-model.js';
import { resect, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, seconds, table } from './support/report.js';

await withFolder(async (folder) => {
  const model = join(folder, 'large.onnx');
  const bytes = writeLargeModel(model);
  const magnitude = ['--sparsity', 0.5, '--init', 'magnitude', '--refine', 'none', '--quiet'];
  const commands = {
    inspect: ['inspect', model],
    'sparsify --dry-run': ['sparsify', model, ...magnitude, '--dry-run'],
    'sparsify, magnitude': ['sparsify', model, '-o', join(folder, 'sparse.onnx'), ...magnitude],
  };
  const rows = [];
  for (const [command, args] of Object.entries(commands)) {
    const { wall, cpu, peak } = await runNode(resect, args);
    rows.push({ command, wall: seconds(wall), CPU: seconds(cpu), 'peak memory': megabytes(peak) });
  }
  publish(
    'memory',
    'Memory on a large model',
    [
      `Model of ${megabytes(bytes)}: 48 MatMul layers of 64 MiB (4096 x 4096), weights in a file of their own.`,
      table(rows),
    ],
    'each command once, as a process of its own; peak is its resident memory, mapped files included.',
  );
});
