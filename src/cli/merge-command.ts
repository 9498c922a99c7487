import path from 'node:path';
import { usageError } from '../errors.js';
import type { Method } from '../methods/method.js';
import type { OperationResult } from '../recipe/operation.js';
import { OperationCommand, type OperationFlags } from './operation-command.js';

/** The values of `mergeFlags`. */
export interface MergeFlags extends OperationFlags {
  eval?: string[];
  mce: boolean;
  batch: number;
  sweep: number;
}

/** A command that makes one model of several. */
export abstract class MergeCommand extends OperationCommand {
  /** @param flags also those of `pairFlags` */
  protected mergePair(
    method: Method,
    flags: MergeFlags & { generalist: string; expert: string },
  ): Promise<OperationResult> {
    const { generalist, expert } = flags;
    return this.#merge(method, [expert, generalist], ['expert', 'generalist'], 'generalist', flags);
  }

  /**
   * @param models files, of which the first gives the result its names
   * @param base what they all were made from
   */
  protected mergeAll(
    method: Method,
    models: string[],
    flags: MergeFlags,
    base?: string,
  ): Promise<OperationResult> {
    const unknown = models.find((model) => model.startsWith('-'));
    if (unknown) throw usageError('There is no such flag.', { got: unknown });
    const least = base === undefined ? 2 : 1;
    if (models.length < least)
      throw usageError(`A merge takes ${least === 1 ? 'a model' : 'two models'} or more.`, {
        expected: least === 1 ? 'an .onnx file' : 'two .onnx files',
        got: models[0] ?? 'none',
      });
    const names = distinct(models);
    return this.#merge(method, models, names, names[0], flags, base);
  }

  #merge(
    method: Method,
    [model, ...others]: string[],
    names: string[],
    reference: string,
    flags: MergeFlags,
    base?: string,
  ): Promise<OperationResult> {
    const { eval: sets = [], sweep, batch, mce } = flags;
    if (mce && sets.length === 0)
      throw usageError('--mce needs sets to measure on.', {
        expected: '--eval clean=DATA --eval noise@1=DATA ...',
      });
    return this.operate(method, model, flags, {
      others,
      names,
      sets,
      sweep,
      batch,
      ...(base !== undefined && { base }),
      ...(mce && { mce: reference }),
    });
  }
}

/** Names of files without their folder and ending; with a number where they repeat. */
function distinct(files: readonly string[]): string[] {
  const names = files.map((file) => path.basename(file).replace(/\.onnx$/, ''));
  return names.map((name, i) => {
    const earlier = names.slice(0, i).filter((other) => other === name).length;
    return earlier === 0 ? name : `${name}#${earlier + 1}`;
  });
}
