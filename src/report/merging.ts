import type { Merging } from '../evaluate/merging/measure.js';
import { number } from './format.js';
import { metric } from './metric.js';
import type { Table } from './table.js';
import { wrap } from './text.js';

/** Sets beside each other in the terminal. */
const shownSets = 5;

/** The merge beside its models, as many sets to a table as fit the terminal. */
export function mergingTables(merging: Merging, columns = shownSets): Table[] {
  const { sets, rows } = merging;
  const measured = sets.flatMap((_, i) => (merging.metric[i] ? [i] : []));
  const tables: Table[] = [];
  for (let at = 0; at < measured.length; at += columns) {
    const some = measured.slice(at, at + columns);
    tables.push({
      header: [headerOf(merging, some), ...some.map((i) => sets[i].name)],
      rows: rows.map(({ name, metrics }) => [
        name,
        ...some.map((i) => valueText(merging.metric[i], metrics[i])),
      ]),
      numeric: some.map((_, c) => c + 1),
    });
  }
  if (rows.some(({ corruption }) => corruption))
    tables.push({
      header: [`relative to ${merging.reference}`, 'mCE', 'relative mCE'],
      rows: rows.map(({ name, corruption }) => [
        name,
        corruption ? corruption.mce.toFixed(1) : '',
        corruption?.relative === undefined ? '' : corruption.relative.toFixed(1),
      ]),
      numeric: [1, 2],
    });
  const coefficients = coefficientTable(merging);
  return [...tables, ...(coefficients ? [coefficients] : [])];
}

const headerOf = ({ metric: names }: Merging, some: readonly number[]): string =>
  [...new Set(some.map((i) => names[i]))].join(', ');

const valueText = (name: string | undefined, metrics: Record<string, number>): string =>
  name === undefined || metrics[name] === undefined ? '' : metric(name, metrics[name]);

/** Quantiles of what the graph said of each set; undefined when it says nothing. */
function coefficientTable({ rows, sets }: Merging): Table | undefined {
  const found = rows[rows.length - 1].coefficients;
  if (!found) return undefined;
  return {
    header: ['10 %, 50 %, 90 %', 'disagreement (nats)', 'lambda'],
    rows: sets.map(({ name }, i) => [
      name,
      found[i].js.map((v) => v.toFixed(4)).join('  '),
      found[i].lambda.map((v) => v.toFixed(3)).join('  '),
    ]),
    numeric: [1, 2],
  };
}

/** What the numbers are of, and what a run of a batch takes. */
export function mergingMeasuredOn({ sets, latency }: Merging): string {
  const named = sets.map(({ name, samples, path }) => `${name}: ${samples} examples of ${path}`);
  const { batch, before, after } = latency;
  const each = (ms: number) => `${number(ms / batch)} ms`;
  return wrap(
    `Measured on ${named.join('; ')}. A sample in a batch of ${batch}: ${each(before.median)} by the first model, ${each(after.median)} by the merge (${number(after.median / before.median)}x), median of interleaved runs.`,
  );
}
