import { batches, type Dataset, type InputSpec, randomFeeds, type Task } from '../data/index.js';
import { ResectError } from '../errors.js';
import { modelInputs } from '../graph/interface.js';
import { type Model, readModel } from '../onnx/index.js';
import { type Latency, measureLatency } from '../runtime/latency.js';
import type { Feeds } from '../runtime/session.js';
import { type EvaluationData, evaluateModels } from './evaluate.js';
import type { GateInput } from './gates.js';
import { measureSize, type SizeMeasure } from './measure.js';
import type { Metrics } from './metrics.js';

/** Random runs when there is no data at all. */
const randomRuns = 8;

export interface Comparison {
  /** What the numbers were measured on. */
  on: {
    kind: 'labelled' | 'unlabelled' | 'random' | 'nothing';
    path?: string;
    samples: number;
    task: Task;
  };
  size: { before: SizeMeasure; after: SizeMeasure };
  /** Task metrics; absent without labels. */
  metrics?: { before: Metrics; after: Metrics };
  /** How close the outputs are to the original's. */
  fidelity?: Metrics;
  latency?: { before: Latency; after: Latency; threads: number };
  /** Why outputs were not compared: the runtime's own words. */
  unmeasured?: string;
}

export interface CompareOptions {
  /** Labelled or unlabelled examples; without any, seeded random inputs. */
  data?: { dataset: Dataset; indices: number[] };
  task: Task;
  threads: number;
  seed: number;
  progress: (stage: string, done: number, total: number) => void;
}

/** A model's file, with what was measured of it before anything was edited in memory. */
export interface Original {
  model: Model;
  size: SizeMeasure;
}

/** Measures two models, as files, side by side. */
export async function compareModels(
  { model: before, size: sizeBefore }: Original,
  afterPath: string,
  options: CompareOptions,
): Promise<Comparison> {
  const { data, threads, seed, progress } = options;
  const beforePath = before.path ?? '';
  const size = { before: sizeBefore, after: await measureSize(await readModel(afterPath)) };
  const task = data ? options.task : 'none';
  const kind = !data ? 'random' : task === 'none' ? 'unlabelled' : 'labelled';
  try {
    const on: EvaluationData = data
      ? { kind: 'data', ...data }
      : { kind: 'random', runs: randomRuns, seed };
    const {
      task: metrics,
      fidelity,
      samples,
    } = await evaluateModels([beforePath, afterPath], on, {
      task,
      threads,
      progress: (done, total) => progress('evaluate', done, total),
    });
    progress('time', 0, 1);
    const [latencyBefore, latencyAfter] = await measureLatency(
      [beforePath, afterPath],
      await timingFeed(before, options),
      {
        threads,
      },
    );
    return {
      on: { kind, path: data?.dataset.path, samples, task },
      size,
      ...(kind === 'labelled' && { metrics: { before: metrics[0], after: metrics[1] } }),
      fidelity: fidelity[0],
      latency: { before: latencyBefore, after: latencyAfter, threads },
    };
  } catch (error) {
    // Only the original's own trouble is forgiven: a custom op, an input that cannot be made up.
    if (!(error instanceof ResectError) || (await runs(beforePath, before, options))) throw error;
    return {
      on: { kind: 'nothing', samples: 0, task },
      size,
      unmeasured: `${error.message} ${error.detail.got ?? ''}`.trim(),
    };
  }
}

/** Inputs of one example, for timing. */
export async function firstFeed(
  dataset: Dataset,
  indices: number[],
  inputs: InputSpec[],
): Promise<Feeds> {
  for await (const batch of batches(dataset, indices.slice(0, 1), 1, inputs)) return batch.feeds;
  throw new Error('an opened dataset has an example');
}

const timingFeed = async ({ proto }: Model, { data, seed }: CompareOptions): Promise<Feeds> =>
  data
    ? firstFeed(data.dataset, data.indices, modelInputs(proto))
    : randomFeeds(modelInputs(proto), 1, seed);

async function runs(path: string, model: Model, options: CompareOptions): Promise<boolean> {
  try {
    await measureLatency([path], await timingFeed(model, options), {
      threads: options.threads,
      seconds: 0,
      runs: 1,
    });
    return true;
  } catch {
    return false;
  }
}

/** What gates look at. */
export const gateInput = ({ metrics, fidelity, size, latency }: Comparison): GateInput => ({
  before: metrics?.before ?? {},
  after: { ...fidelity, ...metrics?.after },
  bytes: { before: size.before.bytes, after: size.after.bytes },
  speedup: latency && latency.before.median / latency.after.median,
});
