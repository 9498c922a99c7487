import { printable } from './text.js';

/** A table: columns are aligned left, or right where they hold numbers. */
export interface Table {
  header: string[];
  rows: string[][];
  /** Positions of columns that are aligned right. */
  numeric?: number[];
}

/** Plain text, at most `width` columns: the widest left-aligned column gives way. */
export function textTable({ header, rows, numeric = [] }: Table, width = 80): string {
  const all = [header, ...rows].map((row) => row.map(printable));
  const widths = header.map((_, c) => Math.max(...all.map((row) => (row[c] ?? '').length)));
  const gap = 2;
  const excess = widths.reduce((a, b) => a + b + gap, -gap) - width;
  if (excess > 0) {
    const flexible = widths.map((w, c) => (numeric.includes(c) ? 0 : w));
    const widest = flexible.indexOf(Math.max(...flexible));
    widths[widest] = Math.max(8, widths[widest] - excess);
  }
  const line = (row: string[]) =>
    row
      .map((cell, c) => {
        const text = shorten(cell, widths[c]);
        return numeric.includes(c) ? text.padStart(widths[c]) : text.padEnd(widths[c]);
      })
      .join(' '.repeat(gap))
      .trimEnd();
  return [line(header), line(widths.map((w) => '-'.repeat(w))), ...all.slice(1).map(line)].join(
    '\n',
  );
}

export function markdownTable({ header, rows, numeric = [] }: Table): string {
  const line = (row: string[]) =>
    `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = `|${header.map((_, c) => (numeric.includes(c) ? '--:' : '---')).join('|')}|`;
  return [line(header), rule, ...rows.map(line)].join('\n');
}

/** Keeps both ends of a long name: layers differ at either. */
function shorten(text: string, width: number): string {
  if (text.length <= width) return text;
  const tail = Math.floor((width - 1) / 2);
  return `${text.slice(0, width - 1 - tail)}…${text.slice(text.length - tail)}`;
}
