import { existsSync } from 'node:fs';
import path from 'node:path';
import { openDataset, type Task } from '../data/index.js';
import { inFile, ResectError, usageError } from '../errors.js';
import { type Comparison, firstFeed, gateInput } from '../evaluate/compare.js';
import { checkGates, type GateResult, type Gates } from '../evaluate/gates.js';
import { corruptions, meanCorruptionError } from '../evaluate/merging/corruption.js';
import {
  type Candidate,
  type Merging,
  type MergingRow,
  measureCandidates,
  measureEnsemble,
  type NamedSet,
} from '../evaluate/merging/measure.js';
import { higherIsBetter, type Metrics } from '../evaluate/metrics.js';
import type { Port } from '../graph/interface.js';
import { Interpolations } from '../methods/merge/interpolations.js';
import { bnParameter } from '../methods/merge/prepare.js';
import type { Progress } from '../methods/method.js';
import { type Model, readModel } from '../onnx/index.js';
import { measureLatency } from '../runtime/latency.js';
import { Session } from '../runtime/session.js';

/** Models to merge with, and how the merge is measured beside them. */
export interface MergingFiles {
  others: string[];
  base?: string;
  /** What tables call the models, the edited one first. */
  names: string[];
  /** Evaluation sets, `NAME=DATA` or DATA alone. */
  sets?: string[];
  /** Weights of the static curve between two models; fewer than 3: no curve. */
  sweep?: number;
  /** Also the mean corruption error, relative to the model of this name. */
  mce?: string;
  /** Samples that are run together. */
  batch?: number;
}

/** The models besides the edited one. */
export interface MergedModels {
  others: Model[];
  base?: Model;
}

/** @throws {ResectError} exit 5 and 7 for files that are no models */
export async function readMerged({ others, base }: MergingFiles): Promise<MergedModels> {
  return {
    others: await Promise.all(others.map((file) => readModel(file))),
    ...(base !== undefined && { base: await readModel(base) }),
  };
}

const allOf = ({ others, base }: MergedModels): Model[] => [...others, ...(base ? [base] : [])];

/** Every file that the models are read from. */
export const filesOf = (models: MergedModels): string[] =>
  allOf(models).flatMap((model) => [...(model.path ? [model.path] : []), ...model.externalFiles()]);

/** The SHA-256 of each model's files, in order, the base last. */
export async function hashMerged(models: MergedModels): Promise<string> {
  const hashes: string[] = [];
  for (const model of allOf(models)) hashes.push(await model.hash());
  return hashes.join(' ');
}

interface MeasureRequest extends MergingFiles {
  /** The model that the result has its graph from. */
  model: string;
  selects: (tensor: string) => boolean;
  /** Of the method. */
  parameters: Record<string, unknown>;
  threads: number;
  progress: Progress;
}

/** Which metric a task is judged by. */
const decisive: Record<Task, string | undefined> = {
  classification: 'accuracy',
  lm: 'perplexity',
  regression: 'r2',
  none: undefined,
};

/**
 * Opens evaluation sets, `NAME=DATA` or DATA alone, which goes by its file's name.
 * @throws {ResectError} exit 2 for two of one name, exit 6 for data that does not fit
 */
export async function openNamedSets(
  given: readonly string[],
  inputs: Port[],
  options: { tokenizer?: string; where?: string; indices?: string; task?: Task },
): Promise<NamedSet[]> {
  const sets: NamedSet[] = [];
  for (const text of given) {
    const { name, file } = named(text);
    if (sets.some((set) => set.name === name))
      throw usageError('Two evaluation sets have one name.', {
        expected: '--eval NAME=DATA with different names',
        got: name,
      });
    const dataset = await inFile(file, () => openDataset(file, inputs, options));
    const indices = Array.from({ length: dataset.length }, (_, i) => i);
    sets.push({ name, dataset, indices, task: options.task ?? dataset.task });
  }
  return sets;
}

function named(text: string): { name: string; file: string } {
  const match = /^([\w@.-]+)=(.+)$/.exec(text);
  if (match && !existsSync(text)) return { name: match[1], file: match[2] };
  return { name: path.basename(text).replace(/\.[^.]*$/, ''), file: text };
}

/** Refuses `mce` for sets that have no corruption or no accuracy. @throws {ResectError} exit 2 */
export function checkCorruptions(sets: readonly NamedSet[]): void {
  if (corruptions(sets.map(({ name }) => name)).all.length === 0)
    throw usageError('--mce needs sets with drift.', {
      expected: '--eval clean=DATA --eval noise@1=DATA --eval noise@3=DATA ...',
      got: sets.map(({ name }) => name).join(', ') || 'none',
    });
  const other = sets.find(({ task }) => task !== 'classification');
  if (other)
    throw usageError('--mce counts wrong answers, and a set has no classes.', { got: other.name });
}

/**
 * Measures a merge beside the models that it was made of.
 * @param made, original the written model, and the one that it has its graph from
 * @returns the measures, and what the user should know of them
 */
export async function measureMerging(
  made: Model,
  original: Model,
  sets: readonly NamedSet[],
  request: MeasureRequest,
): Promise<{ merging: Merging; notes: string[] }> {
  const { others, base, selects, sweep = 0, batch = 32, threads, progress } = request;
  const models = [request.model, ...others, ...(base === undefined ? [] : [base])];
  const names = [...request.names, ...(base === undefined ? [] : ['base'])];
  const bn = bnParameter.parse(request.parameters.bn);
  const notes: string[] = [];
  const options = { batch, progress };
  const oneHot = (i: number) => models.map((_, m) => (m === i ? 1 : 0));
  const curve = await Interpolations.of(models, selects, bn);
  const whole = await Interpolations.of(models, () => true, bn).catch((error) => {
    if (!(error instanceof ResectError)) throw error;
    notes.push('The models differ where they were not merged: only the first is measured alone.');
    return undefined;
  });
  const endpoints = names
    .slice(0, whole ? undefined : 1)
    .map((name, i): Candidate => ({ name, open: () => (whole ?? curve).open(oneHot(i), threads) }));
  const shares = models.length === 2 && sweep > 2 ? between(sweep) : [];
  const inner = shares.map(
    (share): Candidate => ({
      name: `${share.toFixed(2)} ${names[1]}`,
      open: () => curve.open([1 - share, share], threads),
    }),
  );
  const merged: Candidate = {
    name: 'merged',
    open: () => Session.open(made.path ?? '', { threads }),
  };
  const rows = await measureCandidates([...endpoints, ...inner, merged], sets, options);
  const last = rows.pop();
  if (!last) throw new Error('the merge was measured');
  if (whole) rows.push(await measureEnsemble(endpoints, sets, options));
  rows.push(last);

  const merging: Merging = {
    sets: sets.map(({ name, dataset, indices, task }) => ({
      name,
      path: dataset.path,
      samples: indices.length,
      task,
    })),
    metric: sets.map(({ task }) => decisive[task]),
    rows,
    latency: await timeBatch([original.path ?? '', made.path ?? ''], sets[0], batch, threads),
  };
  if (request.mce !== undefined) addCorruption(merging, request.mce);
  notes.push(...findings(merging, [...endpoints, ...inner].length));
  return { merging, notes };
}

/** Inner points of so many weights from 0 to 1. */
const between = (points: number): number[] =>
  Array.from({ length: points - 2 }, (_, i) => (i + 1) / (points - 1));

async function timeBatch(
  files: readonly string[],
  { dataset, indices }: NamedSet,
  batch: number,
  threads: number,
): Promise<Merging['latency']> {
  const sessions: Session[] = [];
  try {
    for (const file of files) sessions.push(await Session.open(file, { threads }));
    const feeds = await firstFeed(dataset, indices, sessions[0].inputs, batch);
    for (const session of sessions) await session.run(feeds);
    const [before, after] = await measureLatency(sessions, feeds);
    const rows = Math.min(batch, indices.length);
    return { batch: rows, before, after };
  } finally {
    for (const session of sessions) await session.release();
  }
}

function addCorruption(merging: Merging, reference: string): void {
  const names = merging.sets.map(({ name }) => name);
  const errors = ({ metrics }: MergingRow) => metrics.map(({ accuracy }) => 1 - accuracy);
  const row = merging.rows.find(({ name }) => name === reference) ?? merging.rows[0];
  merging.reference = row.name;
  for (const each of merging.rows)
    each.corruption = meanCorruptionError(names, errors(each), errors(row));
}

/**
 * Whether the middle between two models is so much worse than the worse of them that a barrier lies between:
 * 5 points of accuracy, 5 % of perplexity.
 */
function isBarrier(metric: string | undefined, [a, b, half]: readonly Metrics[]): boolean {
  if (metric === 'accuracy') return half.accuracy < Math.min(a.accuracy, b.accuracy) - 0.05;
  return metric === 'perplexity' && half.perplexity > 1.05 * Math.max(a.perplexity, b.perplexity);
}

/** What the figures say that the user might not see. @param statics rows that are not dynamic */
function findings({ sets, metric, rows }: Merging, statics: number): string[] {
  const notes: string[] = [];
  const merged = rows[rows.length - 1];
  const better: string[] = [];
  for (const [i, { name }] of sets.entries()) {
    const by = metric[i];
    if (!by) continue;
    const sign = higherIsBetter[by] ? 1 : -1;
    const value = (row: MergingRow) => sign * row.metrics[i][by];
    const best = rows.slice(0, statics).reduce((a, b) => (value(b) > value(a) ? b : a));
    if (value(best) > value(merged)) better.push(`${best.name} on ${name}`);
  }
  if (better.length > 0)
    notes.push(`A static weight is better than the merge: ${better.join(', ')}.`);
  const middle = rows.findIndex(({ name }) => name.startsWith('0.50 '));
  if (middle > 0) {
    const low = sets.flatMap(({ name }, i) => {
      const three = [rows[0], rows[1], rows[middle]].map(({ metrics }) => metrics[i]);
      return isBarrier(metric[i], three) ? [name] : [];
    });
    if (low.length > 0)
      notes.push(
        `Half way between the models is worse than either on ${low.join(', ')}: they lie in different valleys. The calibrated form, which stays near one of them, or an ensemble will serve better.`,
      );
  }
  const lost = merged.coefficients?.reduce((sum, { notFinite }) => sum + notFinite, 0) ?? 0;
  if (lost > 0)
    notes.push(`Scores of ${lost} samples were not finite numbers: they got λ = --lmax.`);
  return notes;
}

/** Checks the gates on every set; those on size and speed once. */
export function checkMergingGates(gates: Gates, comparison: Comparison): GateResult[] {
  const input = gateInput(comparison);
  const { merging } = comparison;
  if (!merging) return checkGates(gates, input);
  const { rows, sets } = merging;
  const ofSet = { ...gates, maxSize: undefined, minSpeedup: undefined };
  const once = checkGates({ ...gates, maxDrop: [], min: [] }, input);
  const each = sets.flatMap(({ name }, i) => {
    const [before, after] = [rows[0].metrics[i], rows[rows.length - 1].metrics[i]];
    return checkGates(ofSet, { ...input, before, after }).map((result) => ({
      ...result,
      gate: `${result.gate} on ${name}`,
    }));
  });
  return [...each, ...once];
}
