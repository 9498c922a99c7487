import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorText } from '../../src/cli/base.js';
import { ResectError } from '../../src/errors.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = join(root, 'bin/run.js');

/** Path of something in the repository, whatever the working directory. */
export const inRepository = (path: string): string => join(root, path);

export interface Outcome {
  /** Null when a signal ended the process. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  /** Peak resident memory; undefined when the process was killed. */
  megabytes?: number;
}

export interface RunOptions {
  cwd?: string;
  /** The process is killed after this; a run that needs it hangs. */
  seconds?: number;
  env?: NodeJS.ProcessEnv;
  /** V8's limit for its own heap; typed arrays are not in it, see `megabytes`. */
  heapMegabytes?: number;
  started?: (child: ChildProcess) => void;
}

/** Reports the peak memory of the process, on a fourth stream, when it ends. */
const reporter = `data:text/javascript,${encodeURIComponent(
  `import { writeSync } from 'node:fs';
   import { isMainThread } from 'node:worker_threads';
   if (isMainThread) process.on('exit', () => writeSync(3, String(process.resourceUsage().maxRSS)));`,
)}`;

/** Runs the `resect` command as a user would: its own process, real streams, real exit code. */
export function resect(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { cwd, seconds = 60, env, heapMegabytes = 1024, started } = options;
  const child = spawn(
    process.execPath,
    [`--max-old-space-size=${heapMegabytes}`, '--import', reporter, program, ...args],
    {
      cwd,
      env: { ...process.env, FORCE_COLOR: undefined, NODE_OPTIONS: undefined, ...env },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    },
  );
  const streams = child.stdio.slice(1).map((stream) => {
    const chunks: Buffer[] = [];
    stream?.on('data', (chunk: Buffer) => chunks.push(chunk));
    return chunks;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000);
  started?.(child);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const [stdout, stderr, memory] = streams.map((chunks) => Buffer.concat(chunks).toString());
      const megabytes = memory ? Number(memory) / 1024 : undefined;
      resolve({ code, signal, stdout, stderr, megabytes });
    });
  });
}

/** What the command line makes of work that is done in this process, which costs no start of another. */
export async function outcomeOf(work: () => Promise<unknown>): Promise<Outcome> {
  try {
    await work();
    return { code: 0, signal: null, stdout: '', stderr: '' };
  } catch (error) {
    const known = error instanceof ResectError;
    const stderr = known ? errorText(error) : `${error instanceof Error ? error.stack : error}`;
    return { code: known ? error.exitCode : 1, signal: null, stdout: '', stderr };
  }
}

/** Runs `work` on every item, two at a time; results in order of the items. */
export async function inTurns<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const i = next++;
      results[i] = await work(items[i]);
    }
  };
  await Promise.all([worker(), worker()]);
  return results;
}

/** A folder of its own for the tests of a file, removed afterwards. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'resect-cli-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function newFolder(...path: string[]): string {
  const folder = join(...path);
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** Paths of everything below a folder, hidden files too, sorted. */
export const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();

/** An error as a user must see it: the exit code, what and where, and no innards. */
export function expectCleanFailure(outcome: Outcome, code: number, says: RegExp): void {
  const { stdout, stderr } = outcome;
  expect({ ...outcome, stdout: undefined }).toMatchObject({ code, signal: null });
  // Lines are broken where the terminal ends.
  expect(flat(stderr)).toMatch(says);
  expect(stderr).not.toMatch(/^\s+at |This is a bug/m);
  expect(stdout).toBe('');
}

/** Runs a command that must succeed without a word of complaint; returns what it prints. */
export async function output(args: readonly string[], options?: RunOptions): Promise<string> {
  const { code, stdout, stderr } = await resect(args, options);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout;
}

/** The same with `--json`: the object that is printed, and nothing beside it. */
export const json = async (args: readonly string[], options?: RunOptions): Promise<unknown> =>
  JSON.parse(await output([...args, '--json'], options));

/** Text of a terminal with its line breaks and columns taken out. */
export const flat = (text: string): string => text.replace(/\s+/g, ' ');

export const sha256 = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex');
