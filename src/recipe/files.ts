import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { ioError, usageError } from '../errors.js';
import { checkOutput, type Model } from '../onnx/index.js';

/** Files that an operation reads and writes, besides the model that it reads. */
export interface OperationFiles {
  output: string;
  /** What else is written. */
  writes: readonly string[];
  reads: readonly string[];
  force?: boolean;
}

/**
 * Refuses, before any work is done, what could not be written at its end: over an input, over another
 * result, over a file that exists without `force`, in a folder that is not there.
 * @throws {ResectError} exit 2 or 7
 */
export function checkFiles(model: Model, { output, writes, reads, force }: OperationFiles): void {
  for (const [i, file] of [output, ...writes].entries()) {
    const earlier = [output, ...writes].slice(0, i).flatMap((other) => [other, `${other}.data`]);
    if (earlier.some((other) => path.resolve(other) === path.resolve(file)))
      throw usageError('Two results would be written to the same file.', { got: file });
    checkOutput(model, file, { force, others: reads });
    try {
      accessSync(path.dirname(file), constants.W_OK);
    } catch (cause) {
      throw ioError(`cannot write ${file}: there is no folder to write to`, {
        where: file,
        got: (cause as Error).message,
        hint: 'Create the folder, or choose another one.',
        cause,
      });
    }
  }
}
