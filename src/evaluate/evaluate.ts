import { type Batch, batches, type Dataset, randomFeeds, type Task } from '../data/index.js';
import { Session } from '../runtime/session.js';
import { Fidelity } from './fidelity.js';
import { type Metrics, taskMetric } from './metrics.js';

/** What a comparison was made on. */
export type EvaluationData =
  | { kind: 'data'; dataset: Dataset; indices: number[] }
  /** No data at all: seeded random inputs. Says how far outputs moved, not how good they are. */
  | { kind: 'random'; runs: number; seed: number };

export interface ModelMetrics {
  /** Task metrics of each model, in the order given; empty for task `none` and for random inputs. */
  task: Metrics[];
  /** Fidelity of each model after the first to the first. */
  fidelity: Metrics[];
  samples: number;
}

export interface EvaluateOptions {
  task: Task;
  threads?: number;
  batchSize?: number;
  progress?: (done: number, total: number) => void;
}

/**
 * Runs models side by side on the same batches. Outputs are reduced batch by batch, never kept.
 * @param models paths; the first is the reference for fidelity.
 */
export async function evaluateModels(
  models: readonly string[],
  data: EvaluationData,
  { task, threads, batchSize = 32, progress }: EvaluateOptions,
): Promise<ModelMetrics> {
  const sessions: Session[] = [];
  try {
    for (const path of models) sessions.push(await Session.open(path, { threads }));
    const [first] = sessions;
    const outputs = first.outputs.map((o) => o.name);
    const hasLabels = data.kind === 'data' && task !== 'none';
    const metrics = sessions.map(() => (hasLabels ? taskMetric(task, outputs) : undefined));
    const classes = task === 'classification' || task === 'lm';
    const fidelities = sessions.slice(1).map(() => new Fidelity(outputs, classes));

    const total = data.kind === 'data' ? data.indices.length : data.runs;
    let done = 0;
    for await (const batch of feed(data, batchSize, first)) {
      const results = [];
      for (const [i, session] of sessions.entries()) {
        const result = await session.run(batch.feeds);
        metrics[i]?.add(result, batch);
        results.push(result);
      }
      for (const [i, fidelity] of fidelities.entries()) fidelity.add(results[0], results[i + 1]);
      done += batch.size;
      progress?.(done, total);
    }
    return {
      task: metrics.map((m) => m?.result() ?? {}),
      fidelity: fidelities.map((f) => f.result()),
      samples: total,
    };
  } finally {
    for (const session of sessions) await session.release();
  }
}

async function* feed(
  data: EvaluationData,
  batchSize: number,
  session: Session,
): AsyncGenerator<Batch> {
  if (data.kind === 'data') {
    yield* batches(data.dataset, data.indices, batchSize, session.inputs);
    return;
  }
  for (let i = 0; i < data.runs; i++) {
    yield { feeds: randomFeeds(session.inputs, 1, data.seed + i), labels: [undefined], size: 1 };
  }
}
