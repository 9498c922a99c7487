import { randomBytes } from 'node:crypto';
import { lstatSync, renameSync, rmSync, type Stats } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import nodePath from 'node:path';
import { ioError } from '../errors.js';
import { ioFailure, kindOf } from './io.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Writes files that appear whole, all of them, or not at all: under their own names in a temporary
 * folder beside the targets, flushed to the disk, then moved in the order given. On failure, on
 * `process.exit` and on SIGINT, SIGTERM and SIGHUP what was written is removed.
 * @param fill writes the content, one handle per target
 * @param check looks at the finished files, by their temporary paths; false when they are to be dropped
 * @returns whether the files were published
 * @throws ioError as `checkTarget`, or when writing fails; whatever `fill` and `check` throw
 */
export async function writeAtomically(
  targets: readonly string[],
  force: boolean,
  fill: (files: FileHandle[]) => Promise<void>,
  check: (temporary: string[]) => Promise<boolean> = async () => true,
): Promise<boolean> {
  for (const target of targets) checkTarget(target, force);
  const suffix = `${randomBytes(6).toString('hex')}.tmp`;
  const folder = nodePath.join(
    nodePath.dirname(targets[0]),
    `.${nodePath.basename(targets[0])}.${suffix}`,
  );
  const temporary = targets.map((target) => nodePath.join(folder, nodePath.basename(target)));
  const files: FileHandle[] = [];
  try {
    track(folder);
    await mkdir(folder).catch((cause) => fail(targets[0], cause));
    for (const path of temporary) {
      track(path);
      files.push(await open(path, 'wx').catch((cause) => fail(path, cause)));
    }
    await fill(files);
    for (const [i, file] of files.entries())
      await file.sync().catch((cause) => fail(targets[i], cause));
    for (const file of files) await file.close();
    if (!(await check(temporary))) return false;
    publish(temporary, targets, force);
    await syncFolder(nodePath.dirname(targets[0]));
    return true;
  } finally {
    for (const file of files) await file.close().catch(() => {});
    for (const path of [...temporary, ...targets, folder]) if (unfinished.has(path)) discard(path);
  }
}

const fail = (path: string, cause: unknown) => Promise.reject(ioFailure('write', path, cause));

/** Gives the files their names, without a pause in which a signal could be handled. */
function publish(temporary: readonly string[], targets: readonly string[], force: boolean): void {
  for (const [i, target] of targets.entries()) {
    const replaces = checkTarget(target, force);
    try {
      renameSync(temporary[i], target);
    } catch (cause) {
      throw ioFailure('write', target, cause);
    }
    untrack(temporary[i]);
    if (!replaces) track(target);
  }
  for (const target of targets) untrack(target);
}

/**
 * Whether there is a file already in the target's place.
 * @throws ioError when there is one and `force` is not set, or when it is anything but a file
 */
export function checkTarget(target: string, force: boolean): boolean {
  const stats = statTarget(target);
  if (!stats) return false;
  if (!stats.isFile() && !stats.isSymbolicLink())
    throw ioError(`cannot write ${target}: it is ${kindOf(stats)}`, {
      where: target,
      expected: 'the name of a file',
      got: kindOf(stats),
      hint: 'Choose another name for the output.',
    });
  if (!force)
    throw ioError(`cannot write ${target}: it exists already`, {
      where: target,
      hint: 'Choose another name for the output, or replace the file with --force.',
    });
  return true;
}

function statTarget(target: string): Stats | undefined {
  try {
    return lstatSync(target, { throwIfNoEntry: false });
  } catch (cause) {
    throw ioFailure('write', target, cause);
  }
}

/**
 * Files, and their temporary folder, that must not outlive a failure. While there are any, the end of
 * the process removes them.
 */
const unfinished = new Set<string>();

function track(path: string): void {
  if (unfinished.size === 0) {
    process.on('exit', discardAll);
    for (const signal of SIGNALS) process.on(signal, onSignal);
  }
  unfinished.add(path);
}

function untrack(path: string): void {
  if (!unfinished.delete(path) || unfinished.size > 0) return;
  process.off('exit', discardAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

function discard(path: string): void {
  rmSync(path, { force: true, recursive: true });
  untrack(path);
}

function discardAll(): void {
  for (const path of unfinished) discard(path);
}

function onSignal(signal: NodeJS.Signals): void {
  discardAll();
  // Without another handler the signal has to do what it does without ours.
  if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
}

/** Makes the new names durable. Some platforms cannot open folders; the files are safe without it. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined);
  await folder?.sync().catch(() => {});
  await folder?.close();
}
