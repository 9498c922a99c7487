/**
 * Cost of masking one layer: Wanda mask at 60 % and DSnoT refinement, at most 50 swaps a row.
 *
 *   npm run build && node bench/dsnot-layer.js [--json]
 *
 * CPU seconds on one thread, the wall-clock gain of two workers, and, when RESECT_PYTHON (default:
 * python3) has torch, the CPU seconds of bench/dsnot-reference.py on one thread with the same input.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RowPool } from '../dist/src/methods/sparsify/row-pool.js';

const REPEATS = 25;
const shapes = [
  [1024, 1024],
  [4096, 1024],
];
const sparsity = 0.6;
const dsnot = { cycles: 50, threshold: 0.1, varPower: 1, sameSign: false };

/** Normal random numbers, the same on every run (mulberry32, Box-Muller). */
function normals(seed) {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** A layer with channels of different spread and mean, as seen over sequences of 2048 tokens. */
function randomLayer(rows, cols) {
  const normal = normals(1);
  // In shared memory, so that workers need no copy.
  const w = new Float32Array(new SharedArrayBuffer(4 * rows * cols));
  for (let i = 0; i < w.length; i++) w[i] = 0.02 * normal();
  const tokens = 2048;
  const spread = Float64Array.from({ length: cols }, () => Math.exp(0.5 * normal()));
  const mean = spread.map((s) => 0.02 * s * normal());
  return {
    w,
    rows,
    cols,
    pattern: { kind: 'unstructured', sparsity },
    criterion: 'wanda',
    statistics: {
      scaler: Float32Array.from(spread, (s, j) => tokens * (s * s + mean[j] * mean[j])),
      sum: Float32Array.from(mean, (m) => tokens * m),
      variance: Float32Array.from(spread, (s) => s * s),
    },
    dsnot,
  };
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/**
 * CPU seconds, the median, and wall-clock seconds, the least, of each piece of work. They take turns,
 * so that they see the same load of the machine; it lengthens the wall clock but hardly the CPU time.
 */
async function measure(...works) {
  const times = works.map((work) => ({ work, cpu: [], wall: [] }));
  for (const work of works) await work();
  for (let i = 0; i < REPEATS; i++) {
    for (const { work, cpu, wall } of times) {
      const cpuBefore = process.cpuUsage();
      const wallBefore = performance.now();
      await work();
      wall.push((performance.now() - wallBefore) / 1e3);
      const { user, system } = process.cpuUsage(cpuBefore);
      cpu.push((user + system) / 1e6);
    }
  }
  return times.map(({ cpu, wall }) => ({ cpu: median(cpu), wall: Math.min(...wall) }));
}

/** CPU seconds of the torch version and how many mask bits differ; undefined without torch. */
function torchReference(layer, mask) {
  const python = process.env.RESECT_PYTHON ?? 'python3';
  if (spawnSync(python, ['-c', 'import torch, numpy']).status !== 0) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'resect-bench-'));
  try {
    const arrays = { w: layer.w, ...layer.statistics };
    for (const [name, values] of Object.entries(arrays)) {
      writeFileSync(join(folder, `${name}.f32`), values);
    }
    const script = fileURLToPath(new URL('dsnot-reference.py', import.meta.url));
    const { rows, cols } = layer;
    const args = [folder, rows, cols, sparsity, dsnot.cycles, dsnot.threshold, REPEATS + 1];
    const run = spawnSync(python, [script, ...args.map(String)], { encoding: 'utf8' });
    if (run.status !== 0) throw new Error(run.stderr);
    const theirs = readFileSync(join(folder, 'mask.u8'));
    const differingBits = mask.reduce((n, bit, i) => n + (bit === theirs[i] ? 0 : 1), 0);
    return { cpu: median(JSON.parse(run.stdout).slice(1)), differingBits };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const one = new RowPool(1);
const two = new RowPool(2);
const results = [];
for (const [rows, cols] of shapes) {
  const layer = randomLayer(rows, cols);
  const { mask, trace } = await one.maskRows(layer);
  const [alone, pair] = await measure(
    () => one.maskRows(layer),
    () => two.maskRows(layer),
  );
  const torch = torchReference(layer, mask);
  results.push({
    layer: `${rows}x${cols}`,
    swapsPerRow: trace.swaps.reduce((a, b) => a + b) / rows,
    cpuSeconds: alone.cpu,
    torchCpuSeconds: torch?.cpu,
    cpuRatioToTorch: torch && alone.cpu / torch.cpu,
    maskBitsUnlikeTorch: torch?.differingBits,
    wallSeconds: alone.wall,
    wallSecondsTwoWorkers: pair.wall,
    speedupTwoWorkers: alone.wall / pair.wall,
  });
}
await two.close();

if (process.argv.includes('--json')) {
  console.log(JSON.stringify({ cpu: cpus()[0].model, node: process.version, results }, null, 2));
} else {
  const show = (value) =>
    typeof value === 'number' ? String(Number(value.toPrecision(3))) : (value ?? 'not measured');
  const columns = Object.keys(results[0]);
  console.log(
    `${cpus()[0].model}, Node ${process.version}; ${REPEATS} runs, CPU: median, wall: least\n`,
  );
  console.log(`| ${columns.join(' | ')} |\n|${columns.map(() => '---|').join('')}`);
  for (const result of results)
    console.log(`| ${columns.map((c) => show(result[c])).join(' | ')} |`);
}
