import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

const { version: runtimeVersion } = createRequire(import.meta.url)('onnxruntime-node/package.json');

/** A Markdown table of rows given as objects with the same keys; columns of numbers to the right. */
export function table(rows) {
  const columns = Object.keys(rows[0]).map((key) => {
    const cells = [key, ...rows.map((row) => String(row[key] ?? ''))];
    const right = rows.every((row) => typeof row[key] === 'number');
    return { cells, right, width: Math.max(3, ...cells.map((cell) => cell.length)) };
  });
  const line = (cellOf) => `| ${columns.map(cellOf).join(' | ')} |`;
  const textLine = (i) =>
    line(({ cells, right, width }) => (right ? cells[i].padStart(width) : cells[i].padEnd(width)));
  const rule = line(({ right, width }) => (right ? ':'.padStart(width, '-') : '-'.repeat(width)));
  return [textLine(0), rule, ...rows.map((_, i) => textLine(i + 1))].join('\n');
}

/**
 * Prints a report and keeps it as results/NAME.md.
 * @param body paragraphs and tables
 * @param how one sentence on how it was measured
 */
export function publish(name, title, body, how) {
  const machine = `${cpus()[0].model.trim()}, ${cpus().length} cores; Node ${process.version}, onnxruntime-node ${runtimeVersion}`;
  const text = [`# ${title}`, machine, ...body, `How: ${how}`].join('\n\n');
  console.log(text);
  const folder = new URL('../results/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  writeFileSync(fileURLToPath(new URL(`${name}.md`, folder)), `${text}\n`);
}

export const seconds = (value) => `${value.toFixed(value < 1 ? 2 : 1)} s`;
export const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
export const times = (value) => `${value.toFixed(2)}x`;
