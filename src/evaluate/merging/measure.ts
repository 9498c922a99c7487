import type { Batch, Dataset, Task } from '../../data/index.js';
import type { Latency } from '../../runtime/latency.js';
import type { Feeds, Session } from '../../runtime/session.js';
import { evaluateModels } from '../evaluate.js';
import type { Metrics } from '../metrics.js';
import type { CorruptionError } from './corruption.js';
import { Ensemble } from './ensemble.js';

/** Data to measure on, by name. */
export interface NamedSet {
  name: string;
  dataset: Dataset;
  indices: number[];
  task: Task;
}

/** A model to be measured: its session is opened when its turn comes. */
export interface Candidate {
  name: string;
  open: () => Promise<Session>;
}

/** The measure of one model, or of the ensemble, on each set. */
export interface MergingRow {
  name: string;
  metrics: Metrics[];
  /** Of a graph that merges itself, on each set. */
  coefficients?: Coefficients[];
}

/** A merge beside the models it was made of, on every set. */
export interface Merging {
  sets: { name: string; path: string; samples: number; task: Task }[];
  /** Which metric decides, of each set; absent for task `none`. */
  metric: (string | undefined)[];
  /** Models, the static curve between two, the ensemble, and last the merge. */
  rows: (MergingRow & { corruption?: CorruptionError })[];
  /** Which model the corruption errors are relative to. */
  reference?: string;
  /** Milliseconds per run of a batch, of the first model and of the merge, interleaved. */
  latency: { batch: number; before: Latency; after: Latency };
}

/** 10 %, 50 % and 90 % quantiles. */
export type Quantiles = [number, number, number];

/** What a graph that merges itself said of a set. */
export interface Coefficients {
  js: Quantiles;
  lambda: Quantiles;
  /** Samples whose scores were not finite. */
  notFinite: number;
}

export interface MeasureOptions {
  batch: number;
  progress: (stage: string, done: number, total: number) => void;
}

/** Measures candidates one after the other, so that only one is in memory. */
export async function measureCandidates(
  candidates: readonly Candidate[],
  sets: readonly NamedSet[],
  { batch, progress }: MeasureOptions,
): Promise<MergingRow[]> {
  const rows: MergingRow[] = [];
  for (const [i, { name, open }] of candidates.entries()) {
    const session = await open();
    try {
      const outputs = new Set(session.outputs.map((o) => o.name));
      const observed = outputs.has('lambda') && outputs.has('js');
      const row: MergingRow = { name, metrics: [], ...(observed && { coefficients: [] }) };
      for (const set of sets) {
        const seen = new Observed();
        row.metrics.push((await run([session], set, batch, observed ? seen.add : undefined))[0]);
        row.coefficients?.push(seen.result());
      }
      rows.push(row);
    } finally {
      await session.release();
    }
    progress('measure', i + 1, candidates.length);
  }
  return rows;
}

/** Gathers what the graph puts out as `lambda` (one a sample or a batch) and `js`. */
class Observed {
  readonly #js: number[] = [];
  readonly #lambda: number[] = [];

  add = ([{ js, lambda }]: readonly Feeds[], { size }: { size: number }): void => {
    this.#js.push(...Array.from(js.data, Number).slice(0, size));
    this.#lambda.push(...Array.from(lambda.data, Number).slice(0, size));
  };

  result(): Coefficients {
    const finite = this.#js.filter(Number.isFinite);
    return {
      js: quantiles(finite),
      lambda: quantiles(this.#lambda),
      notFinite: this.#js.length - finite.length,
    };
  }
}

/** The mean of the answers of models that were not merged. @param models all under the names of the first */
export async function measureEnsemble(
  models: readonly Candidate[],
  sets: readonly NamedSet[],
  { batch }: MeasureOptions,
): Promise<MergingRow> {
  const sessions: Session[] = [];
  try {
    for (const { open } of models) sessions.push(await open());
    const metrics: Metrics[] = [];
    const outputs = sessions[0].outputs.map(({ name }) => name);
    for (const set of sets) {
      const ensemble = new Ensemble(set.task, outputs);
      await run(sessions, set, batch, (results, data) => ensemble.add(results, data));
      metrics.push(ensemble.result());
    }
    return { name: 'ensemble', metrics };
  } finally {
    for (const session of sessions) await session.release();
  }
}

async function run(
  sessions: readonly Session[],
  { dataset, indices, task }: NamedSet,
  batch: number,
  onBatch?: (outputs: readonly Feeds[], batch: Batch) => void,
): Promise<Metrics[]> {
  const data = { kind: 'data', dataset, indices } as const;
  return (await evaluateModels(sessions, data, { task, batch, onBatch })).metrics;
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (q: number) => sorted[Math.round(q * (sorted.length - 1))] ?? Number.NaN;
  return [at(0.1), at(0.5), at(0.9)];
}
