import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

const { version: runtimeVersion } = createRequire(import.meta.url)('onnxruntime-node/package.json');

/** A Markdown table of rows given as objects with the same keys. */
export function table(rows) {
  const columns = Object.keys(rows[0]);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [
    line(columns),
    `|${columns.map((c) => (rows.every((r) => typeof r[c] === 'number') ? '---:|' : '---|')).join('')}`,
    ...rows.map((row) => line(columns.map((c) => row[c] ?? ''))),
  ].join('\n');
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
