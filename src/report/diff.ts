import type { Difference } from '../graph/diff.js';
import { textTable } from './table.js';

/** Differences for the terminal. */
export function diffText(differences: Difference[]): string {
  if (differences.length === 0) return 'The models are the same.';
  const rows = differences.map(({ kind, where, detail }) => [kind, where, detail]);
  const counts = new Map<string, number>();
  for (const { kind } of differences) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const summary = [...counts].map(([kind, n]) => `${n} x ${kind}`).join(', ');
  return `${textTable({ header: ['', 'where', 'difference'], rows })}\n\n${differences.length} differences: ${summary}`;
}
