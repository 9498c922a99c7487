import { batches } from '../../data/index.js';
import { mainGraph, Names } from '../../graph/bodies.js';
import { Constants, isView } from '../../graph/constants.js';
import { inlineFunctions } from '../../graph/functions.js';
import { Graph } from '../../graph/graph.js';
import { modelInputs } from '../../graph/interface.js';
import { floatAttribute, isStandard } from '../../graph/nodes.js';
import {
  encodeFloat32,
  type Model,
  type NodeProto,
  type TensorProto,
  tensorInfo,
} from '../../onnx/index.js';
import { defaultOpset } from '../../runtime/instrument.js';
import { openPart } from '../../runtime/part.js';
import { withSession } from '../../runtime/session.js';
import type { Context } from '../method.js';
import { Emitter } from './dynamic/emitter.js';

/** Samples of one pass: statistics of a few would be noise. */
const batchSize = 64;

/**
 * Takes the running statistics of every BatchNormalization anew: the mean over batches of what comes
 * into it, while all normalise by the statistics of the batch, as torch.optim.swa_utils.update_bn does.
 * @returns what the user should know
 */
export async function reestimateBatchNorm(
  model: Model,
  { calibration, threads, progress }: Pick<Context, 'calibration' | 'threads' | 'progress'>,
): Promise<string[]> {
  if (!calibration) throw new Error('statistics are taken of calibration data');
  const proto = inlineFunctions(model.proto);
  const graph = mainGraph(proto);
  const view = new Graph(proto);
  const constants = new Constants(view);
  const emitter = new Emitter(new Names(graph), defaultOpset(proto));
  const norms: { mean: TensorProto; variance: TensorProto; values: [string, string, string] }[] =
    [];
  const stored = (node: NodeProto, index: number) => {
    const value = view.input(view.root, node, index);
    const traced = value && constants.trace(value);
    return isView(traced) ? traced.tensor : undefined;
  };
  for (const node of graph.node) {
    const [mean, variance] = [stored(node, 3), stored(node, 4)];
    const isNorm = isStandard(node) && node.opType === 'BatchNormalization';
    if (!isNorm || !mean || !variance) emitter.nodes.push(node);
    else norms.push({ mean, variance, values: emitTraining(emitter, node) });
  }
  if (norms.length === 0) return ['The model has no BatchNormalization to take statistics of.'];

  const wanted = norms.flatMap(({ values }) => values);
  const variant = {
    ...proto,
    graph: {
      ...graph,
      node: emitter.nodes,
      initializer: [...graph.initializer, ...emitter.initializers],
      output: wanted.map((name) => ({ name })),
    },
  };
  const { bytes, folder } = await openPart(model, variant);
  const { dataset, indices } = calibration;
  const sums = new Map<string, Float64Array>();
  let weight = 0;
  await withSession(bytes, { folder, threads }, async (session) => {
    let done = 0;
    for await (const batch of batches(dataset, indices, batchSize, modelInputs(proto))) {
      const out = await session.run(batch.feeds, wanted);
      for (const name of wanted) {
        const values = Float64Array.from(out[name].data, Number);
        const sum = sums.get(name) ?? new Float64Array(values.length);
        for (let i = 0; i < values.length; i++) sum[i] += batch.size * values[i];
        sums.set(name, sum);
      }
      weight += batch.size;
      done += batch.size;
      progress('statistics', done, indices.length);
    }
  });
  for (const { mean, variance, values } of norms) {
    const [first, second, count] = values.map((name) => sums.get(name)?.map((v) => v / weight));
    if (!first || !second || !count) throw new Error('an output of the variant is missing');
    // As a running variance is: that of the population, not of the batch.
    const unbias = count[0] > 1 ? count[0] / (count[0] - 1) : 1;
    set(model, mean, first);
    set(
      model,
      variance,
      second.map((v) => v * unbias),
    );
  }
  return [
    `BatchNormalization statistics were taken anew from ${indices.length} samples: off their domain the result may be worse than with merged statistics.`,
  ];
}

function set(model: Model, tensor: TensorProto, values: Float64Array): void {
  const bytes = encodeFloat32(Float32Array.from(values), tensorInfo(tensor).dtype);
  model.edits.set(tensor, () => bytes);
}

/**
 * A BatchNormalization by the statistics of its batch, in place of `node`.
 * @returns names of mean [C], variance [C] and number of values per channel [1]
 */
function emitTraining(e: Emitter, node: NodeProto): [string, string, string] {
  const [raw, scale, bias] = node.input;
  // Flattened to [N, C, rest], whatever the rank is.
  const x = e.emit('Reshape', [raw, e.ints([0, 0, -1])]);
  const mean = e.reduceMean(x, [0, 2]);
  const column = (v: string) => e.emit('Reshape', [v, e.ints([1, -1, 1])]);
  const centred = e.emit('Sub', [x, column(mean)]);
  const variance = e.reduceMean(e.emit('Mul', [centred, centred]), [0, 2]);
  const epsilon = e.scalar(floatAttribute(node, 'epsilon', 1e-5));
  const deviation = e.emit('Sqrt', [e.emit('Add', [variance, epsilon])]);
  const normal = e.emit('Mul', [centred, column(e.emit('Div', [scale, deviation]))]);
  const shifted = e.emit('Add', [normal, column(bias)]);
  e.emit('Reshape', [shifted, e.emit('Shape', [raw])], [], node.output[0]);
  const counts = e.emit('Div', [e.emit('Size', [x]), e.emit('Size', [mean])]);
  return [mean, variance, e.cast(counts, 'float32')];
}
