import {
  type Batch,
  batches,
  type Dataset,
  type Example,
  randomFeeds,
  type Task,
} from '../data/index.js';
import { ExitCode, ResectError } from '../errors.js';
import { type Latency, quartiles } from '../runtime/latency.js';
import type { Feeds, Session } from '../runtime/session.js';
import { Fidelity } from './fidelity.js';
import { type Metrics, taskMetric } from './metrics.js';

/** What a comparison was made on. */
export type EvaluationData =
  | { kind: 'data'; dataset: Dataset; indices: number[] }
  /** No data at all: seeded random inputs. Says how far outputs moved, not how good they are. */
  | { kind: 'random'; runs: number; seed: number };

export interface ModelMetrics {
  /** Task metrics of each model, in the order given; empty for task `none` and for random inputs. */
  metrics: Metrics[];
  /** Fidelity of each model after the first to the first. */
  fidelity: Metrics[];
  /** Of each model, where examples were run one at a time and often enough. */
  latency?: Latency[];
  samples: number;
}

/** Examples run at once: as many as have this many input values together. */
const batchValues = 2 ** 18;
const largestBatch = 32;

/** Runs that say enough of a model's latency; with fewer it is timed on its own. */
const timedRuns = 5;

export interface EvaluateOptions {
  task: Task;
  /** Examples run at once; by default as many as have moderately many values. */
  batch?: number;
  /** Sees what a batch made of each model, before it is dropped. */
  onBatch?: (outputs: readonly Feeds[], batch: Batch) => void;
  progress?: (done: number, total: number) => void;
}

/**
 * Runs models side by side on the same batches. Outputs are reduced batch by batch, never kept.
 * @param sessions the first is the reference for fidelity
 */
export async function evaluateModels(
  sessions: readonly Session[],
  data: EvaluationData,
  { task, batch: wanted, onBatch, progress }: EvaluateOptions,
): Promise<ModelMetrics> {
  const [first] = sessions;
  const outputs = first.outputs.map((o) => o.name);
  const metrics = sessions.map(() =>
    data.kind === 'data' ? taskMetric(task, outputs) : undefined,
  );
  const classes = task === 'classification' || task === 'lm';
  const fidelities = sessions.slice(1).map(() => new Fidelity(outputs, classes));

  const total = data.kind === 'data' ? data.indices.length : data.runs;
  const times: number[][] = sessions.map(() => []);
  let done = 0;
  for await (const batch of feed(data, first, wanted)) {
    const results: Feeds[] = [];
    await atData(data, async () => {
      for (const [i, session] of sessions.entries()) {
        const start = performance.now();
        results.push(await session.run(batch.feeds));
        if (batch.size === 1) times[i].push(performance.now() - start);
        metrics[i]?.add(results[i], batch);
      }
    });
    onBatch?.(results, batch);
    for (const [i, fidelity] of fidelities.entries()) fidelity.add(results[0], results[i + 1]);
    done += batch.size;
    progress?.(done, total);
  }
  return {
    metrics: metrics.map((m) => m?.result() ?? {}),
    fidelity: fidelities.map((f) => f.result()),
    // The first run of a session is slower than the others.
    ...(times[0].length > timedRuns && { latency: times.map((t) => quartiles(t.slice(1))) }),
    samples: total,
  };
}

/** Errors about data say which it is. */
async function atData(data: EvaluationData, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const isAboutData = error instanceof ResectError && error.exitCode === ExitCode.badData;
    if (!isAboutData || data.kind === 'random') throw error;
    const { message, exitCode, detail } = error;
    throw new ResectError(message, exitCode, {
      ...detail,
      where: detail.where ?? data.dataset.path,
    });
  }
}

async function* feed(
  data: EvaluationData,
  session: Session,
  wanted?: number,
): AsyncGenerator<Batch> {
  if (data.kind === 'data') {
    const size = wanted ?? batchSize(await data.dataset.example(data.indices[0]));
    yield* batches(data.dataset, data.indices, size, session.inputs);
    return;
  }
  for (let i = 0; i < data.runs; i++) {
    yield {
      feeds: randomFeeds(session.inputs, 1, data.seed + i),
      labels: [undefined],
      size: 1,
    };
  }
}

/** Examples to run at once. Sequences run one at a time: what a token costs is not told by its size. */
export function batchSize({ inputs, tokens }: Example): number {
  if (tokens !== undefined) return 1;
  const values = Object.values(inputs).reduce((n, { data }) => n + data.length, 0);
  return Math.min(largestBatch, Math.max(1, Math.floor(batchValues / Math.max(1, values))));
}
