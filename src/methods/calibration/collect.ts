import { type Batch, batches, type TensorData } from '../../data/index.js';
import { modelInputs } from '../../graph/interface.js';
import { extractPart } from '../../graph/segments.js';
import { dtypeCode, type Model, type ModelProto } from '../../onnx/index.js';
import {
  instrument,
  type Probe,
  pickInput,
  type Reduction,
  readReduction,
  validInput,
} from '../../runtime/instrument.js';
import { openPart } from '../../runtime/part.js';
import { type Feeds, type Session, withSession } from '../../runtime/session.js';
import type { Calibration } from '../method.js';
import { StatisticsAccumulator } from './statistics.js';

/** Token rows kept of each activation in all, to measure output errors on. */
const keptRows = 1024;

/** What calibration told of one activation. */
export interface Collected {
  /** One per convolution group; a plain layer has one. */
  accumulators: StatisticsAccumulator[];
  /** [n, C] a few token rows, evenly drawn from all samples. */
  rows: Float32Array;
}

/** The activation that separates a part of the model from what is before it, one entry per sample. */
export type Boundary = { name: string; values: TensorData[] };

/** A part of the model to run calibration data through. */
export interface Part {
  model: Model;
  /** The model with local functions inlined. */
  proto: ModelProto;
  calibration: Calibration;
  /** Cached input of the part; absent for the part that starts at the model's inputs. */
  input?: Boundary;
  threads: number;
  progress: (done: number, total: number) => void;
}

/**
 * Streams the calibration data through a part, one sample a run, and reduces what each probe sees.
 * Memory: the statistics, and one run's activations inside the runtime.
 * @returns per probe, in order; undefined where no sample reached it (a branch not taken).
 */
export async function collectStatistics(
  part: Part,
  probes: Probe[],
): Promise<(Collected | undefined)[]> {
  const roots = probes.map(rootValue);
  const base = extract(part, roots);
  const padded = await paddedProbes(part, base, probes);
  const instrumented = instrument(base, probes, { padded });

  const samples = part.calibration.indices.length;
  const picks = Math.ceil(keptRows / Math.max(1, samples));
  const collected = probes.map(
    () => undefined as (Collected & { kept: Float32Array[] }) | undefined,
  );
  let run = 0;
  await withPart(part, instrumented, async (session) => {
    for await (const { feeds, batch, copies } of partFeeds(part)) {
      const outputs = await session.run({
        ...feeds,
        [pickInput]: pickTensor(picks, run++),
        ...(padded.size > 0 && { [validInput]: validRows(feeds, batch, copies) }),
      });
      for (const [i, probe] of probes.entries()) {
        const reduction = readReduction(outputs, i);
        if (!reduction) continue;
        collected[i] ??= {
          accumulators: Array.from(
            { length: probe.groups },
            () => new StatisticsAccumulator(probe.features / probe.groups, { gram: probe.gram }),
          ),
          rows: new Float32Array(0),
          kept: [],
        };
        addReduction(collected[i], reduction, probe, copies);
      }
    }
  });
  return collected.map((c) => c && { accumulators: c.accumulators, rows: concat(c.kept) });
}

/** Runs the part and keeps its value `output` for every sample: the input of the next part. */
export async function propagate(part: Part, output: string): Promise<Boundary> {
  const values: TensorData[] = [];
  await withPart(part, extract(part, [output]), async (session) => {
    for await (const { feeds } of partFeeds(part)) {
      const results = await session.run(feeds, [output]);
      values.push(results[output]);
    }
  });
  return { name: output, values };
}

const extract = ({ proto, input }: Part, outputs: string[]): ModelProto =>
  extractPart(
    proto,
    input
      ? [{ name: input.name, type: { tensorType: { elemType: dtypeCode(input.values[0].dtype) } } }]
      : [],
    outputs,
  );

const withPart = <T>(
  { model, threads }: Part,
  proto: ModelProto,
  use: (session: Session) => Promise<T>,
) =>
  openPart(model, proto).then(({ bytes, folder }) => withSession(bytes, { threads, folder }, use));

interface Run {
  feeds: Feeds;
  batch: Batch;
  /** Times the sample is repeated, to fill a batch of frozen size. */
  copies: number;
}

/** One sample a run, with the cached activation that the part starts from. */
async function* partFeeds({ proto, calibration, input, progress }: Part): AsyncGenerator<Run> {
  const { dataset, indices } = calibration;
  const specs = modelInputs(proto);
  const example = await dataset.example(indices[0]);
  for (const [run, index] of indices.entries()) {
    for await (const batch of batches(dataset, [index], 1, specs)) {
      const [copies = 1] = Object.entries(example.inputs).flatMap(([name, { dims }]) =>
        batch.feeds[name]?.dims.length === dims.length + 1 ? batch.feeds[name].dims[0] : [],
      );
      const boundary = input && { [input.name]: input.values[run] };
      yield { feeds: { ...batch.feeds, ...boundary }, batch, copies };
    }
    progress(run + 1, indices.length);
  }
}

/**
 * Which probes see one row per token, and so see padding where a sample is shorter than the model's
 * fixed sequence. Empty when no sample is padded.
 */
async function paddedProbes(part: Part, base: ModelProto, probes: Probe[]): Promise<Set<Probe>> {
  let length = 0;
  for await (const { batch } of partFeeds({ ...part, progress: () => {} })) {
    const padded = batch.tokens && sequenceLength(batch.feeds);
    if (padded && padded > (batch.tokens?.[0] ?? 0)) length = padded;
    if (length) break;
  }
  if (!length) return new Set();
  const bare = probes.map((probe) => ({ ...probe, gram: false }));
  return withPart(part, instrument(base, bare), async (session) => {
    const found = new Set<Probe>();
    for await (const { feeds, copies } of partFeeds({ ...part, progress: () => {} })) {
      const outputs = await session.run({ ...feeds, [pickInput]: pickTensor(1, 0) });
      for (const [i, probe] of probes.entries()) {
        if (readReduction(outputs, i)?.tokens === copies * length) found.add(probe);
      }
      break;
    }
    return found;
  });
}

/** Tokens a run holds, padding included: the second dimension of the token-like inputs. */
const sequenceLength = (feeds: Feeds): number =>
  Math.max(
    0,
    ...Object.values(feeds).flatMap((t) =>
      t.dims.length === 2 && /int/.test(t.dtype) ? t.dims[1] : [],
    ),
  );

function addReduction(
  to: Collected & { kept: Float32Array[] },
  reduction: Reduction,
  probe: Probe,
  copies: number,
) {
  const { sum, centredSquares, gram } = reduction;
  const once = (values: Float32Array) => (copies === 1 ? values : values.map((v) => v / copies));
  const tokens = reduction.tokens / copies;
  const width = probe.features / probe.groups;
  for (const [g, accumulator] of to.accumulators.entries()) {
    const slice = (all: Float32Array, size: number) => all.subarray(g * size, (g + 1) * size);
    const groupSum = once(slice(sum, width));
    const centred = once(slice(centredSquares, width));
    accumulator.add({
      samples: 1,
      tokens,
      sum: groupSum,
      // Σx² = Σ(x - mean)² + (Σx)²/n: both terms positive, nothing cancels.
      sumSquares: Float64Array.from(centred, (c, j) => c + (groupSum[j] * groupSum[j]) / tokens),
      centredSquares: centred,
      gram: gram && once(slice(gram, width * width)),
    });
  }
  to.kept.push(reduction.rows);
}

/** The value of the main graph that a probe's activation is computed with. */
function rootValue({ scope, value }: Probe): string {
  let name = value;
  for (let s = scope; s.parent && s.owner; s = s.parent) name = s.owner.output[0];
  return name;
}

/**
 * Fractions of a sample's rows: one in each of equal stretches, at a place that differs from run to
 * run (multiples of the golden ratio), for what a token holds depends on its position.
 */
const pickTensor = (picks: number, run: number): TensorData => ({
  dtype: 'float32',
  dims: [picks],
  data: Float32Array.from(
    { length: picks },
    (_, i) => (i + ((0.5 + run * 0.618033988749895) % 1)) / picks,
  ),
});

/** Row numbers of the tokens that are not padding, in every copy of the sample. */
function validRows(feeds: Feeds, { tokens = [0] }: Batch, copies: number): TensorData {
  const length = sequenceLength(feeds);
  const rows: bigint[] = [];
  for (let c = 0; c < copies; c++) {
    for (let t = 0; t < tokens[0]; t++) rows.push(BigInt(c * length + t));
  }
  return { dtype: 'int64', dims: [rows.length], data: BigInt64Array.from(rows) };
}

export function concat(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Columns of one convolution group out of token rows [n, groups * cols]. */
export function groupRows(
  rows: Float32Array,
  cols: number,
  groups: number,
  group: number,
): Float32Array {
  if (groups === 1) return rows;
  const n = rows.length / (cols * groups);
  const own = new Float32Array(n * cols);
  for (let i = 0; i < n; i++) {
    const from = (i * groups + group) * cols;
    own.set(rows.subarray(from, from + cols), i * cols);
  }
  return own;
}
