import { layerCosts } from '../../graph/channels/macs.js';
import { Graph } from '../../graph/graph.js';
import { Model, type NodeProto } from '../../onnx/index.js';
import { refuseDropSearch } from '../drop-search.js';
import { exampleShapes } from '../example-shapes.js';
import type { Context, Surgery } from '../method.js';
import { type BitsOf, givenBits } from './bits.js';
import { searchBits } from './bits-search.js';
import { equalizeLayers } from './equalize-layers.js';
import type { StoredLayer } from './formats/layers.js';
import { refuseQuantized } from './formats/refuse-quantized.js';
import type { CompressLayer } from './layers.js';
import { type Network, readNetwork, wishes } from './network.js';
import { notesOn } from './notes.js';
import { type CompressParameters, formatOf } from './parameters.js';
import { checkRules, describeLayers, namesOf } from './plan.js';
import { type Pruned, prune } from './pruning.js';
import { type RewriteOptions, type RewrittenLayer, rewriteLayers } from './rewrite.js';
import type { Rounding } from './rounding.js';
import { measureSignals } from './statistics/measured.js';
import { measureErrors } from './statistics/measured-error.js';
import { storeWeights } from './store.js';
import { writeParameters } from './write-parameters.js';

/** Removes channels of `model` and rounds its weights, in memory. See `Method.apply`. */
export async function compressModel(
  model: Model,
  given: CompressParameters,
  context: Context,
): Promise<Surgery<CompressLayer>> {
  refuseQuantized(model.proto);
  if (given.bits === 'auto') refuseDropSearch('--bits auto', context);
  const network = await readSource(model, given, context);
  checkRules(network, given);
  const wanted = wishes(network, given, context.selects);
  const planned = givenBits(given, namesOf(network), context.selects);
  const wished = describeLayers(network, wanted, planned);
  if (wished.every(({ status }) => status !== 'changed'))
    return { layers: wished, changedTensors: [], notes: notesOn(given, wished, {}) };

  const { calibration, threads } = context;
  const pruned = await prune(network, wanted, given, context);
  const store = (made: Repaired, bitsOf: BitsOf) =>
    storeWeights(made.compressed, given, {
      bitsOf,
      layers: network.found.layers,
      rewritten: made.rewritten,
      calibration,
      threads,
    });
  const search =
    given.bits === 'auto'
      ? await searchBits(network, given, pruned.statistics, context, async (bitsOf) => {
          const tried = await repair(pruned, given, bitsOf, context);
          await store(tried, bitsOf);
          return tried.compressed;
        })
      : undefined;
  const bitsOf = search?.bitsOf ?? planned;
  const made = await repair(pruned, given, bitsOf, context);
  const { layers, macs } = await report(pruned, bitsOf, made, context);
  const stored = await store(made, bitsOf);
  describeStored(layers, stored);
  const { compressed } = made;
  Object.assign(model.proto, compressed.proto);
  for (const [tensor, edit] of compressed.edits) model.edits.set(tensor, edit);
  const notes = notesOn(given, layers, {
    stored,
    calibrated: calibration !== undefined,
    normalized: isNormalized(network),
  });
  return {
    layers,
    macs,
    changedTensors: (compressed.proto.graph?.initializer ?? []).map(({ name = '' }) => name),
    notes: [...(search ? [search.note] : []), ...notes],
  };
}

/** The model, with its layers brought to equal ranges where their weights share a scale. */
async function readSource(
  model: Model,
  { granularity, bits }: CompressParameters,
  { calibration }: Context,
): Promise<Network> {
  const network = await readNetwork(model, calibration);
  const equalized =
    granularity === 'tensor' && bits !== 32 ? await equalizeLayers(network) : undefined;
  return equalized ? readNetwork(equalized, calibration) : network;
}

/** Whether half of the convolutions or more have a BatchNormalization behind them. */
function isNormalized({ graph }: Network): boolean {
  const count = (op: string) => graph.root.graph.node.filter(({ opType }) => opType === op).length;
  return 2 * count('BatchNormalization') >= count('Conv');
}

interface Repaired {
  /** With rounded weights as floats. */
  compressed: Model;
  rewritten: RewrittenLayer[];
}

/** The cut network with everything that makes up for what it lost, and rounded weights as floats. */
async function repair(
  { network, positions, cut, statistics, part }: Pruned,
  given: CompressParameters,
  bitsOf: BitsOf,
  { progress }: Context,
): Promise<Repaired> {
  const compressed = new Model({ ...cut }, undefined, network.model.path);
  let written = 0;
  const write = (done: readonly RewrittenLayer[]) => {
    const parameters = done.slice(written).flatMap((layer) => layer.parameters);
    if (parameters.length > 0) writeParameters(compressed, parameters);
    written = done.length;
  };
  const measure: RewriteOptions['measure'] =
    part &&
    (async (layer, width, done) => {
      write(done);
      const name = layer.node.input[0];
      const quiet = { ...part, progress: () => {} };
      const signal = (await measureSignals(quiet, compressed, [{ layer, width }])).get(name);
      return signal ?? layer.input;
    });
  const total = network.found.layers.length;
  const rewritten = await rewriteLayers(network, {
    given,
    positions,
    statistics,
    measure,
    rounding: roundingOf(network, given, bitsOf),
    progress: (done) => progress('repair', done, total),
  });
  write(rewritten);
  return { compressed, rewritten };
}

function roundingOf(
  { found, nameOf }: Network,
  given: CompressParameters,
  bitsOf: BitsOf,
): RewriteOptions['rounding'] {
  const formattable = new Set<NodeProto>(
    found.layers.flatMap(({ node, weight, op }) => {
      const computed = formatOf(given) === 'float' || weight.view.dtype === 'float32';
      // Scales of a transposed convolution serve all groups at once; the format finds them itself.
      return computed && op !== 'ConvTranspose' ? [node] : [];
    }),
  );
  return ({ node }): Rounding | undefined => {
    const bits = formattable.has(node) ? bitsOf(nameOf(node)) : undefined;
    return bits === undefined ? undefined : { bits, granularity: given.granularity };
  };
}

/** Every layer with what became of it, but for how its weight is stored. */
async function report(
  { network, outcome, part }: Pruned,
  bitsOf: BitsOf,
  { compressed, rewritten }: Repaired,
  { calibration }: Context,
): Promise<{ layers: CompressLayer[]; macs?: { before: number; after: number } }> {
  const after = await exampleShapes(compressed, calibration);
  const costs = (graph: Graph, { shapes, examples }: typeof after) =>
    new Map(
      layerCosts(graph, shapes).map(({ node, macs, bytes }) => [
        node.output[0],
        { bytes, macs: macs === undefined ? undefined : macs / examples },
      ]),
    );
  const costsBefore = costs(network.graph, network);
  const costsAfter = costs(new Graph(compressed.proto), after);
  const errors = part && (await measuredErrors(part, network.shapes, compressed, rewritten));
  const byName = new Map(rewritten.map((layer) => [network.nameOf(layer.node), layer]));
  const layers = describeLayers(network, outcome, bitsOf).map((layer): CompressLayer => {
    const rewrite = byName.get(layer.name);
    const node = network.found.layers.find(({ name }) => name === layer.name)?.node;
    const [old, now] = [costsBefore, costsAfter].map((of) => of.get(node?.output[0] ?? ''));
    return {
      ...layer,
      ...(rewrite && {
        status: 'changed',
        condition: rewrite.condition,
        ridge: rewrite.ridge,
        predictedError: rewrite.predictedError,
        measuredError: errors?.get(rewrite.output),
      }),
      ...(old && now && { bytes: { before: old.bytes, after: now.bytes } }),
      ...(old?.macs !== undefined &&
        now?.macs !== undefined && { macs: { before: old.macs, after: now.macs } }),
    };
  });
  const known = layers.flatMap((layer) => (layer.macs ? [layer.macs] : []));
  const sum = (key: 'before' | 'after') => known.reduce((total, macs) => total + macs[key], 0);
  return {
    layers,
    ...(known.length > 0 && { macs: { before: sum('before'), after: sum('after') } }),
  };
}

async function measuredErrors(
  part: NonNullable<Pruned['part']>,
  shapes: Network['shapes'],
  compressed: Model,
  rewritten: readonly RewrittenLayer[],
): Promise<Map<string, number>> {
  const values = rewritten.flatMap(({ output, kept, node }) => {
    const rank = shapes.get(output)?.dims?.length;
    if (!rank) return [];
    return [{ name: output, kept, axis: node.opType === 'MatMul' ? rank - 1 : 1 }];
  });
  return measureErrors(part, compressed, values);
}

/** Adds how weights are stored to the layers, in place. */
function describeStored(layers: CompressLayer[], stored: readonly StoredLayer[]): void {
  const byName = new Map(stored.map((layer) => [layer.name, layer]));
  for (const layer of layers) {
    const weight = byName.get(layer.name);
    if (!weight || layer.status === 'skipped') continue;
    if (weight.status === 'skipped') {
      layer.bits = undefined;
      layer.reason = weight.reason;
    }
    if (weight.bytes !== undefined && layer.bytes) {
      const asFloats = 4 * (weight.shape ?? []).reduce((a, b) => a * b, 1);
      layer.bytes.after += weight.bytes - asFloats;
    }
  }
}
