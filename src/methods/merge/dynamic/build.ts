import { batches, randomFeeds } from '../../../data/index.js';
import { ResectError } from '../../../errors.js';
import { modelInputs } from '../../../graph/interface.js';
import { opName } from '../../../graph/nodes.js';
import type { Model, ModelProto } from '../../../onnx/index.js';
import { openPart } from '../../../runtime/part.js';
import { type Feeds, withSession } from '../../../runtime/session.js';
import type { Context } from '../../method.js';
import { buildBatch, type DynamicOptions } from './batch.js';
import { classify, NotLinear, type Plan } from './classify.js';
import { buildClusters } from './cluster.js';
import type { Pair } from './pair.js';
import { type MakeFeeds, probe, probeOutputs } from './probe.js';
import { buildSample, probedValues } from './sample.js';
import { buildScan } from './scan.js';

/** Samples that both ways to merge per sample are compared on. */
const checked = 3;
/** Largest difference, against the largest output, that rounding explains. */
const tolerance = 1e-3;

/** What is built on: a new pair for every graph, so that names stay short. */
type NewPair = () => Pair;

/**
 * Gives the model a graph that merges when it runs.
 * @param shares of the generalist in the merges of mode `cluster`, rising
 * @returns what the user should know
 * @throws {ResectError} exit 5 when the samples are not along the first axis of what comes in and out
 */
export async function buildDynamic(
  newPair: NewPair,
  mode: 'batch' | 'sample' | 'cluster',
  options: DynamicOptions & { shares: readonly number[] },
  context: Pick<Context, 'calibration' | 'seed'>,
): Promise<string[]> {
  const pair = newPair();
  const { model } = pair;
  // Models that are the same have nothing to merge, whatever the mode.
  if (mode === 'batch' || pair.outputs.length === 0) {
    buildBatch(pair, options);
    return [];
  }
  if (mode === 'sample' && takesOne(model.proto)) {
    buildBatch(pair, options);
    return ['The model takes one sample at a time: one merge a run is one merge a sample.'];
  }
  const feeds = feedsFor(model.proto, context);
  const along = await sampleInputs(feeds);
  if (mode === 'cluster') {
    const probed = await probeOutputs(model, pair.outputs, feeds);
    buildClusters(pair, options.shares, along, probed, options);
    return [];
  }
  return buildPerSample(newPair, feeds, along, options);
}

/** Whether every input has room for one sample only. */
function takesOne(proto: ModelProto): boolean {
  const firsts = modelInputs(proto).flatMap(({ dims }) => dims.slice(0, 1));
  return firsts.length > 0 && firsts.every((size) => size === 1);
}

async function buildPerSample(
  newPair: NewPair,
  feeds: MakeFeeds,
  along: ReadonlySet<string>,
  options: DynamicOptions,
): Promise<string[]> {
  const pair = newPair();
  const { model } = pair;
  const original = model.proto.graph;
  const { outputs } = pair;
  const scan = async () => {
    model.proto.graph = original;
    const looped = newPair();
    buildScan(looped, along, await probeOutputs(model, outputs, feeds), options);
  };
  const plan = planOf(pair);
  if (plan instanceof NotLinear) {
    await scan();
    const { node } = plan;
    return [
      `${opName(node)} (${node.name || node.output[0]}) is not linear in its weights: ${slowly}`,
    ];
  }
  const values = probedValues(plan);
  const probed = await probe(model, values, feeds);
  // A BatchNormalization has its samples along the first axis.
  const norms = [...plan.treatments].filter(([, t]) => t === 'statistics').map(([node]) => node);
  const isLost = (name: string) => !probed.has(name);
  if (values.some(isLost) || norms.some(({ output }) => probed.get(output[0])?.axis !== 0)) {
    await scan();
    return [`A value inside the model does not hold the samples along one axis: ${slowly}`];
  }
  buildSample(pair, plan, probed, options);
  // That rows of one sample follow each other is an assumption: the loop does without it.
  const byBlending = model.proto.graph;
  const some = await feeds(checked);
  const blended = await run(model, some, outputs);
  let looped = blended;
  try {
    await scan();
    looped = await run(model, some, outputs);
  } catch (error) {
    if (!(error instanceof ResectError)) throw error; // A model that takes no single samples.
  }
  if (!agree(blended, looped))
    return [`Samples do not keep to their own rows inside the model: ${slowly}`];
  model.proto.graph = byBlending;
  return [];
}

const slowly = 'the graph merges the weights for each sample in a loop, which is slow.';

function planOf(pair: Pair): Plan | NotLinear {
  try {
    return classify(pair);
  } catch (error) {
    if (error instanceof NotLinear) return error;
    throw error;
  }
}

async function run(model: Model, feeds: Feeds, outputs: readonly string[]): Promise<Feeds> {
  const { bytes, folder } = await openPart(model, model.proto);
  return withSession(bytes, { folder }, (session) => session.run(feeds, outputs));
}

function agree(a: Feeds, b: Feeds): boolean {
  return Object.entries(a).every(([name, { data }]) => {
    const other = b[name].data;
    let largest = 1;
    let difference = 0;
    for (let i = 0; i < data.length; i++) {
      const [x, y] = [Number(data[i]), Number(other[i])];
      largest = Math.max(largest, Math.abs(y) || 0);
      difference = Math.max(difference, Math.abs(x - y) || 0);
    }
    return data.length === other.length && difference <= tolerance * largest;
  });
}

/** Calibration samples, or random inputs where there are too few. */
function feedsFor(
  proto: ModelProto,
  { calibration, seed }: Pick<Context, 'calibration' | 'seed'>,
): MakeFeeds {
  const inputs = modelInputs(proto);
  return async (size) => {
    if (calibration && calibration.indices.length >= size) {
      const { dataset, indices } = calibration;
      for await (const batch of batches(dataset, indices.slice(0, size), size, inputs))
        if (batch.size === size) return batch.feeds;
    }
    return randomFeeds(inputs, size, seed);
  };
}

/** Inputs that hold the samples along their first axis. */
async function sampleInputs(feeds: MakeFeeds): Promise<Set<string>> {
  const [two, three] = [await feeds(2), await feeds(3)];
  return new Set(
    Object.keys(two).filter((name) => two[name].dims[0] === 2 && three[name].dims[0] === 3),
  );
}
