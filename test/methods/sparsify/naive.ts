/** DSnoT and Wanda masks by sorting whole rows: slow, but easy to compare with the published pseudo-code. */
import type { DsnotOptions } from '../../../src/methods/sparsify/dsnot.js';
import type { Pattern } from '../../../src/methods/sparsify/pattern.js';
import type { Criterion } from '../../../src/methods/sparsify/scores.js';

export interface NaiveRow {
  w: number[];
  scaler: number[];
  sum: number[];
  variance: number[];
}

export interface NaiveResult {
  /** 1 = keep. */
  mask: number[];
  swaps: number;
  stop: number;
  finalError: number;
}

const f32 = Math.fround;

/** Scores of a row that its initial mask is made from. */
export function naiveScores(
  { w, scaler }: NaiveRow,
  criterion: Exclude<Criterion, 'sparsegpt'>,
): number[] {
  return w.map((x, j) => {
    const norm = criterion === 'wanda' ? f32(Math.sqrt(scaler[j])) : 1;
    return f32(Math.abs(x) * norm);
  });
}

export function naiveMask(scores: number[], pattern: Pattern): number[] {
  const columns = scores.map((_, j) => j);
  const lowest = (candidates: number[], count: number) =>
    [...candidates].sort((a, b) => order(scores[a], scores[b]) || a - b).slice(0, count);
  const pruned = new Set<number>();
  if (pattern.kind === 'unstructured') {
    const count = Math.trunc(scores.length * pattern.sparsity);
    for (const j of lowest(columns, count)) pruned.add(j);
  } else {
    for (let from = 0; from < scores.length; from += pattern.m) {
      for (const j of lowest(columns.slice(from, from + pattern.m), pattern.n)) pruned.add(j);
    }
  }
  return columns.map((j) => (pruned.has(j) ? 0 : 1));
}

export function naiveDsnot(
  row: NaiveRow,
  scores: number[],
  initial: number[],
  pattern: Pattern,
  options: DsnotOptions,
): NaiveResult {
  const { w, sum, variance } = row;
  const columns = w.map((_, j) => j);
  const d = w.map((x, j) => f32(x * sum[j]));
  const wanda = naiveScores(row, 'wanda');
  const power = (v: number) => (options.varPower === 0.5 ? Math.sqrt(v) : v ** options.varPower);
  const g = d.map((x, j) => f32(x / f32(power(variance[j]))));
  const pruned = columns.filter((j) => initial[j] === 0);
  const kept = columns.filter((j) => initial[j] === 1);

  const growPositive = pruned.filter((j) => g[j] > 0).sort((a, b) => order(g[b], g[a]) || b - a);
  const growNegative = pruned.filter((j) => g[j] < 0).sort((a, b) => order(g[a], g[b]) || a - b);
  const victims = [...kept].sort((a, b) => order(wanda[a], wanda[b]) || a - b);
  const prunePositive = victims.filter((j) => d[j] > 0);
  const pruneNegative = victims.filter((j) => d[j] < 0);
  const prunable = new Set(kept);
  const lowestInGroup = (grow: number, m: number) =>
    columns
      .filter((j) => Math.floor(j / m) === Math.floor(grow / m) && prunable.has(j))
      .sort((a, b) => order(scores[a], scores[b]) || a - b)[0];

  const mask = [...initial];
  const threshold = f32(options.threshold);
  const sameSign = options.sameSign || pattern.kind === 'nm';
  const start = f32(pruned.reduce((total, j) => total + d[j], 0));
  let error = start;
  for (let swaps = 0; swaps < options.cycles; swaps++) {
    const end = (stop: number) => ({ mask, swaps, stop, finalError: error });
    if (!(Math.abs(error) > threshold)) return end(0);
    const grow = (error > 0 ? growPositive : growNegative).shift();
    if (grow === undefined) return end(2);
    const prune =
      pattern.kind === 'nm'
        ? lowestInGroup(grow, pattern.m)
        : (error > 0 ? pruneNegative : prunePositive).shift();
    if (prune === undefined) return end(2);
    const after = f32(f32(error + d[prune]) - d[grow]);
    if (sameSign && Math.sign(after) !== Math.sign(start)) return end(3);
    mask[prune] = 0;
    mask[grow] = 1;
    prunable.delete(prune);
    error = after;
  }
  return { mask, swaps: options.cycles, stop: 1, finalError: error };
}

/** Like a - b, but infinities of the same sign are equal. */
function order(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}
