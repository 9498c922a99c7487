import { int, makeNode } from '../../../graph/build.js';
import { Workspace } from '../../../graph/workspace.js';
import type { Model, ModelProto } from '../../../onnx/index.js';
import { openPart } from '../../../runtime/part.js';
import { type Feeds, type Session, withSession } from '../../../runtime/session.js';
import type { Range } from './activation-ranges.js';
import { Histogram } from './histogram.js';
import { rangedValues } from './integer-ops.js';

/** How a range is chosen from what was seen. */
export type RangeRule =
  /** Least and largest value. */
  | { kind: 'min-max' }
  /** Leaves out the `outside` fraction of the values, half of it on either side. */
  | { kind: 'percentile'; outside: number }
  /** The least squared error of uint8 codes, of 71 fractions 0.30 to 1.00 of the whole range. */
  | { kind: 'least-squares' };

/**
 * The ranges of the activations that an integer graph may hold, seen in runs of the model: once for
 * least and largest, which are taken in the graph, and again for the other rules, where one run's
 * activations at a time are counted into histograms. Values that are not finite have no range.
 * @param runs the feeds of each run; called once for each pass
 * @throws {ResectError} exit 5 and 6 as the runtime refuses the model or the feeds
 */
export async function measureRanges(
  model: Model,
  runs: () => AsyncIterable<Feeds> | Iterable<Feeds>,
  { rule = { kind: 'min-max' }, threads }: { rule?: RangeRule; threads?: number } = {},
): Promise<Map<string, Range>> {
  const workspace = new Workspace(model);
  const names = rangedValues(workspace);
  const open = { model, threads };

  const ends = names.flatMap((name) => [`${name}/min`, `${name}/max`]);
  const ranges = new Map<string, Range>();
  await withOutputs(open, withExtremes(workspace.proto, names), ends, async (session) => {
    for await (const feeds of runs()) {
      const seen = await session.run(feeds, ends);
      for (const name of names) widen(ranges, name, seen);
    }
  });
  for (const [name, { min, max }] of ranges)
    if (!Number.isFinite(min) || !Number.isFinite(max)) ranges.delete(name);
  if (rule.kind === 'min-max') return ranges;

  const histograms = new Map([...ranges].map(([name, range]) => [name, new Histogram(range)]));
  const inputs = new Set(workspace.graph.input.map(({ name }) => name));
  const fetched = [...ranges.keys()].filter((name) => !inputs.has(name));
  await withOutputs(open, workspace.proto, fetched, async (session) => {
    for await (const feeds of runs()) {
      const seen = { ...feeds, ...(await session.run(feeds, fetched)) };
      for (const [name, histogram] of histograms) {
        const { data } = seen[name];
        if (data instanceof Float32Array) histogram.add(data);
      }
    }
  });
  for (const [name, histogram] of histograms)
    ranges.set(
      name,
      rule.kind === 'percentile' ? histogram.percentile(rule.outside) : histogram.leastSquares(),
    );
  return ranges;
}

function widen(ranges: Map<string, Range>, name: string, seen: Feeds): void {
  const [low, high] = [seen[`${name}/min`], seen[`${name}/max`]];
  // Sizes and positions are not activations.
  if (low?.dtype !== 'float32' || high?.dtype !== 'float32') return;
  const [min, max] = [Number(low.data[0]), Number(high.data[0])];
  const known = ranges.get(name) ?? { min, max };
  // Not by comparison, which NaN would pass.
  ranges.set(name, { min: Math.min(known.min, min), max: Math.max(known.max, max) });
}

/** The model with least and largest element of each value. */
function withExtremes(proto: ModelProto, names: readonly string[]): ModelProto {
  const { graph } = proto;
  if (!graph) return proto;
  const reductions = names.flatMap((name) => [
    makeNode('ReduceMin', [name], `${name}/min`, [int('keepdims', 0)]),
    makeNode('ReduceMax', [name], `${name}/max`, [int('keepdims', 0)]),
  ]);
  return { ...proto, graph: { ...graph, node: [...graph.node, ...reductions] } };
}

/** A session of `proto`, a variant of a model, that puts out the given values alone. */
async function withOutputs(
  { model, threads }: { model: Model; threads?: number },
  proto: ModelProto,
  names: readonly string[],
  use: (session: Session) => Promise<void>,
): Promise<void> {
  const { graph } = proto;
  if (!graph || names.length === 0) return;
  const variant = { ...proto, graph: { ...graph, output: names.map((name) => ({ name })) } };
  const { bytes, folder } = await openPart(model, variant);
  await withSession(bytes, { threads, folder }, use);
}
