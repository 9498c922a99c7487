import { accessSync, constants } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ioError, usageError } from '../errors.js';

/** Report formats, by what makes them. */
export interface ReportFormats {
  json: () => unknown;
  markdown: () => string;
}

/**
 * Writes reports in the format that each file's name asks for; see `checkReports`.
 * @throws {ResectError} exit 7 when a file cannot be written.
 */
export async function writeReports(
  files: readonly string[],
  formats: ReportFormats,
): Promise<void> {
  for (const file of files) {
    const text =
      path.extname(file) === '.json'
        ? `${JSON.stringify(formats.json(), null, 2)}\n`
        : formats.markdown();
    try {
      await writeFile(file, text);
    } catch (cause) {
      throw ioError('A report cannot be written.', {
        where: file,
        got: String((cause as Error).message),
        cause,
      });
    }
  }
}

/**
 * Refuses reports before the work that they are to tell of.
 * @param output what they must not replace
 * @throws {ResectError} exit 2 for another extension than .json or .md, 7 when there is no folder to
 *   write to.
 */
export function checkReports(files: readonly string[], output?: string): void {
  for (const file of files) {
    if (!['.json', '.md'].includes(path.extname(file))) {
      throw usageError('Reports are written as JSON or Markdown.', {
        expected: 'FILE.json or FILE.md',
        got: file,
      });
    }
    if (output !== undefined && path.resolve(file) === path.resolve(output)) {
      throw usageError('A report would replace the output.', { got: file });
    }
    try {
      accessSync(path.dirname(file), constants.W_OK);
    } catch (cause) {
      throw ioError('A report cannot be written there.', {
        where: file,
        got: String((cause as Error).message),
      });
    }
  }
}
