import type { Difference } from '../graph/diff.js';
import { printable, wrap } from './text.js';

/** Differences for the terminal: what differs, and below it how. */
export function diffText(differences: Difference[]): string {
  if (differences.length === 0) return 'The models are the same.';
  const counts = new Map<string, number>();
  for (const { kind } of differences) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const summary = [...counts].map(([kind, n]) => `${n} x ${kind}`).join(', ');
  const rows = differences.map(({ kind, where, detail }) => {
    const short = detail.length > longest ? `${detail.slice(0, longest - 1)}…` : detail;
    return `${printable(`${kind} ${where}`)}\n${wrap(printable(short), { first: '  ', rest: '  ' })}`;
  });
  return `${rows.join('\n')}\n\n${differences.length} differences: ${summary}`;
}

/** Characters of a detail that are shown; `--json` has all. */
const longest = 240;
