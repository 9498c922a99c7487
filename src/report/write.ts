import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ioError, usageError } from '../errors.js';

/** Report formats, by what makes them. */
export interface ReportFormats {
  json: () => unknown;
  markdown: () => string;
}

/**
 * Writes reports in the format that each file's name asks for.
 * @throws {ResectError} exit 2 for another extension than .json or .md, 7 when a file cannot be written.
 */
export async function writeReports(
  files: readonly string[],
  formats: ReportFormats,
): Promise<void> {
  checkReportNames(files);
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

export function checkReportNames(files: readonly string[]): void {
  for (const file of files) {
    if (!['.json', '.md'].includes(path.extname(file))) {
      throw usageError('Reports are written as JSON or Markdown.', {
        expected: 'FILE.json or FILE.md',
        got: file,
      });
    }
  }
}
