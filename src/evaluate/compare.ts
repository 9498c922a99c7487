import { batches, type Dataset, type InputSpec, randomFeeds, type Task } from '../data/index.js';
import { ExitCode, ResectError } from '../errors.js';
import { modelInputs } from '../graph/interface.js';
import type { Model } from '../onnx/index.js';
import { type Latency, measureLatency } from '../runtime/latency.js';
import { type Feeds, Session } from '../runtime/session.js';
import { type EvaluationData, evaluateModels } from './evaluate.js';
import type { Forgetting, ForgettingMeasures } from './forgetting/measure.js';
import type { GateInput } from './gates.js';
import { largestRead, measureSize, type SizeMeasure } from './measure.js';
import type { Merging } from './merging/measure.js';
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
  /** Of a request to forget. */
  forgetting?: Forgetting;
  /** Of a merge, beside its models. */
  merging?: Merging;
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

/**
 * Measures two models, as files, side by side. Where the original itself does not run (a custom op,
 * an input that cannot be made up) only sizes are compared, and the reason is told.
 * @throws {ResectError} exit 6 when the data does not fit, 5 when only the other model does not run.
 */
export async function compareModels(
  original: Original,
  other: Model,
  options: CompareOptions,
): Promise<Comparison> {
  const { threads } = options;
  const originalPath = original.model.path ?? '';
  const size = { before: original.size, after: await measureSize(other) };
  if (!options.data && size.before.bytes > largestRead) {
    const unmeasured = 'there is no data, and the model is too large to be run for random inputs';
    return { on: { kind: 'nothing', samples: 0, task: 'none' }, size, unmeasured };
  }
  const sessions: Session[] = [];
  try {
    let feeds: Feeds;
    try {
      feeds = await timingFeed(original.model, options);
      sessions.push(await Session.open(originalPath, { threads }));
      await sessions[0].run(feeds);
    } catch (error) {
      if (!isRefusal(error, options)) throw error;
      const unmeasured = `${error.message} ${error.detail.got ?? ''}`.trim();
      return { on: { kind: 'nothing', samples: 0, task: 'none' }, size, unmeasured };
    }
    sessions.push(await Session.open(other.path ?? '', { threads }));
    return { size, ...(await compareSessions(sessions, feeds, options)) };
  } finally {
    for (const session of sessions) await session.release();
  }
}

/** True when the model, not the user's data, is the reason that nothing runs. */
const isRefusal = (error: unknown, { data }: CompareOptions): error is ResectError =>
  error instanceof ResectError && (error.exitCode === ExitCode.unsupportedModel || !data);

async function compareSessions(
  sessions: Session[],
  feeds: Feeds,
  { data, task, threads, seed, progress }: CompareOptions,
): Promise<Omit<Comparison, 'size'>> {
  const labelled = data !== undefined && task !== 'none';
  const on: EvaluationData = data
    ? { kind: 'data', ...data }
    : { kind: 'random', runs: randomRuns, seed };
  const { metrics, fidelity, samples, latency } = await evaluateModels(sessions, on, {
    task: data ? task : 'none',
    progress: (done, total) => progress('evaluate', done, total),
  });
  const [before, after] = latency ?? (await measureLatency(sessions, feeds));
  return {
    on: {
      kind: labelled ? 'labelled' : data ? 'unlabelled' : 'random',
      path: data?.dataset.path,
      samples,
      task: data ? task : 'none',
    },
    ...(labelled && { metrics: { before: metrics[0], after: metrics[1] } }),
    fidelity: fidelity[0],
    latency: { before, after, threads },
  };
}

/** Inputs of the first examples, for timing. */
export async function firstFeed(
  dataset: Dataset,
  indices: number[],
  inputs: InputSpec[],
  count = 1,
): Promise<Feeds> {
  const some = indices.slice(0, count);
  for await (const batch of batches(dataset, some, count, inputs)) return batch.feeds;
  throw new Error('an opened dataset has an example');
}

const timingFeed = async ({ proto }: Model, { data, seed }: CompareOptions): Promise<Feeds> =>
  data
    ? firstFeed(data.dataset, data.indices, modelInputs(proto))
    : randomFeeds(modelInputs(proto), 1, seed);

/** What gates look at. Of a model that was to forget, what it was to keep. */
export const gateInput = ({
  metrics,
  fidelity,
  size,
  latency,
  forgetting,
}: Comparison): GateInput => ({
  before: forgetting ? kept(forgetting.before) : (metrics?.before ?? {}),
  after: { ...fidelity, ...(forgetting ? kept(forgetting.after) : metrics?.after) },
  ...(forgetting && {
    forget: { before: forgetting.before.forget, after: forgetting.after.forget },
  }),
  bytes: { before: size.before.bytes, after: size.after.bytes },
  speedup: latency && latency.before.median / latency.after.median,
});

const kept = ({ testRetain, test, retain }: ForgettingMeasures): Metrics => ({
  ...(test ?? retain),
  ...testRetain,
});
