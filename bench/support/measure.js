import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const usageScript = new URL('usage.js', import.meta.url).href;

/** The command line, as a user starts it. */
export const resect = fileURLToPath(new URL('../../bin/run.js', import.meta.url));

/** Hands an empty folder to `use` and removes it, with what is in it, whatever happens. */
export async function withFolder(use) {
  const folder = mkdtempSync(join(tmpdir(), 'resect-bench-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Runs a script in a Node process of its own.
 * @returns wall-clock and CPU (user and system) seconds of the process, its peak resident memory in
 *   bytes, and what it printed
 */
export async function runNode(script, args) {
  return withFolder(async (folder) => {
    const usageFile = join(folder, 'usage.json');
    const start = performance.now();
    const child = spawn(process.execPath, ['--import', usageScript, script, ...args.map(String)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, RESECT_BENCH_USAGE: usageFile },
    });
    const stdout = [];
    child.stdout.on('data', (chunk) => stdout.push(chunk));
    const [code] = await once(child, 'close');
    const wall = (performance.now() - start) / 1000;
    if (code !== 0) throw new Error(`${script} ${args.join(' ')} ended with ${code}`);
    const usage = JSON.parse(readFileSync(usageFile, 'utf8'));
    return { wall, ...usage, stdout: Buffer.concat(stdout).toString() };
  });
}

export const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
