/** The same moments from calibration data: what is known where BatchNormalization was folded away. */
import { int, int64Tensor, makeNode, tensor } from '../../../graph/build.js';
import { Graph, type Scope } from '../../../graph/graph.js';
import {
  type AttributeProto,
  type GraphProto,
  type Model,
  type ModelProto,
  type NodeProto,
  readTensorBytes,
  type TensorProto,
} from '../../../onnx/index.js';
import type { Probe } from '../../../runtime/instrument.js';
import { type Collected, collectStatistics, type Part } from '../../calibration/collect.js';
import { submatrix } from '../../linalg/matrix.js';
import { range } from '../maths/mixing.js';
import type { Moments, Signal } from '../maths/moments.js';
import type { LayerNode } from './layers.js';

/**
 * Mean and covariance of the channels of every tensor that the layers read, over samples and positions,
 * by its name. Products are float32. Tensors that no sample reached are absent.
 */
export async function measureMoments(
  part: Part,
  layers: readonly LayerNode[],
): Promise<Map<string, Moments>> {
  const { root } = new Graph(part.proto);
  const read = new Map(layers.map((layer) => [layer.node.input[0], layer]));
  const probes = [...read].map(([name, layer]) => probe(root, name, layer));
  const collected = await collectStatistics(part, probes);
  const found = [...read.keys()].flatMap((name, i) => {
    const statistics = collected[i];
    return statistics ? [[name, moments(statistics)] as const] : [];
  });
  return new Map(found);
}

/** A tensor that is to be measured in two networks: of `width` channels in the compressed one. */
export interface MeasuredPair {
  layer: LayerNode;
  width: number;
}

/**
 * Signals of the tensors that the layers read, by their names, which both networks must have; both see the
 * same samples. What is in front of none of the layers is not run, so that networks may be compared layer
 * by layer while the compressed one is being made.
 */
export async function measureSignals(
  part: Part,
  compressed: Model,
  pairs: readonly MeasuredPair[],
): Promise<Map<string, Signal>> {
  const read = new Map(pairs.map((pair) => [pair.layer.node.input[0], pair]));
  const joint = await sideBySide(part.proto, compressed);
  for (const [name, pair] of read) joint.graph.node.push(...joined(name, pair));
  const { root } = new Graph(joint.proto);
  const probes = [...read].map(([name, { layer, width }]): Probe => {
    const features = layer.layer.filters.inputs + width;
    const node = makeNode('Conv', [], '');
    return {
      scope: root,
      value: pairName(name),
      layout: { kind: 'patches', node, kernel: [1], channels: features },
      features,
      groups: 1,
      gram: true,
    };
  });
  const collected = await collectStatistics({ ...part, proto: joint.proto }, probes);
  const found = [...read].flatMap(([name, { layer }], i) => {
    const statistics = collected[i];
    const channels = layer.layer.filters.inputs;
    return statistics ? [[name, parted(moments(statistics), channels)] as const] : [];
  });
  return new Map(found);
}

/** Whether the channels are the second axis of what a layer reads, once it is of three axes. */
const channelsSecond = ({ node, storage: { order } }: LayerNode): boolean =>
  node.opType === 'Conv' ||
  node.opType === 'ConvTranspose' ||
  (node.opType === 'Gemm' && order.indexOf('input') < order.indexOf('tap'));

function probe(scope: Scope, value: string, layer: LayerNode): Probe {
  const { inputs: features } = layer.layer.filters;
  const common = { scope, value, features, groups: 1, gram: true };
  if (!channelsSecond(layer)) return { ...common, layout: { kind: 'axis', axis: -1 } };
  // As a pointwise convolution would see it, which reads [N, C, positions].
  const node = makeNode('Conv', [], '');
  return { ...common, layout: { kind: 'patches', node, kernel: [1], channels: features } };
}

/** Of all that was seen: E x and E xxᵀ - E x·E xᵀ. */
function moments({ accumulators: [accumulator] }: Collected): Moments {
  const { samples, tokens, sum, hessian } = accumulator.finish();
  if (!hessian) throw new Error('no Gram matrix was asked for');
  const mean = Float64Array.from(sum, (value) => (value * samples) / tokens);
  const n = mean.length;
  const covariance = Float64Array.from(
    hessian,
    (value, k) => (value * samples) / (2 * tokens) - mean[Math.floor(k / n)] * mean[k % n],
  );
  return { mean, covariance };
}

/** The moments of two tensors behind each other, the first of `channels` channels, as a signal. */
function parted({ mean, covariance }: Moments, channels: number): Signal {
  const n = mean.length;
  const first = range(channels);
  const second = range(n).subarray(channels);
  const part = (rows: Uint32Array, cols: Uint32Array) => submatrix(covariance, n, rows, cols);
  return {
    original: { mean: mean.slice(0, channels), covariance: part(first, first) },
    compressed: {
      mean: mean.slice(channels),
      covariance: part(second, second),
      cross: part(first, second),
    },
  };
}

export const PREFIX = 'resect/compressed/';
const pairName = (name: string) => `resect/pair/${name}`;

/** Nodes that put the channels of both networks behind each other, [N, channels, positions]. */
function joined(name: string, { layer, width }: MeasuredPair): NodeProto[] {
  const nodes: NodeProto[] = [];
  const emit = (
    op: string,
    inputs: string[],
    output: string,
    attributes: AttributeProto[] = [],
  ) => {
    nodes.push(makeNode(op, inputs, output, attributes));
    return output;
  };
  const side = (value: string, channels: number) => {
    const part = (of: string) => `${pairName(value)}/${of}`;
    const second = channelsSecond(layer);
    const dims = int64Tensor(second ? [0, channels, -1] : [-1, channels, 1]);
    const shape = emit('Constant', [], part('shape'), [tensor('value', dims)]);
    return emit('Reshape', [value, shape], part('channels'));
  };
  const sides = [side(name, layer.layer.filters.inputs), side(PREFIX + name, width)];
  emit('Concat', sides, pairName(name), [int('axis', 1)]);
  return nodes;
}

/** One model that computes both; names of the second are prefixed, but for those of its inputs. */
export async function sideBySide(
  original: ModelProto,
  compressed: Model,
): Promise<{ proto: ModelProto; graph: GraphProto }> {
  const [first, second] = [original.graph, compressed.proto.graph];
  if (!first || !second) throw new Error('a model without graph has no tensors');
  const stored = new Set(second.initializer.map(({ name }) => name));
  const fed = new Set(second.input.map(({ name }) => name).filter((name) => !stored.has(name)));
  const rename = (name: string) => (name && !fed.has(name) ? PREFIX + name : name);
  const renamed = prefixed(second, rename);
  const initializer: TensorProto[] = [];
  for (const [i, tensor] of second.initializer.entries()) {
    const { name } = renamed.initializer[i];
    if (!compressed.edits.has(tensor)) initializer.push({ ...tensor, name });
    else {
      const { dims, dataType } = tensor;
      const rawData = await readTensorBytes(compressed, tensor);
      initializer.push({ dims, dataType, name, rawData });
    }
  }
  const graph: GraphProto = {
    ...first,
    node: [...first.node, ...renamed.node],
    initializer: [...first.initializer, ...initializer],
    sparseInitializer: [...(first.sparseInitializer ?? []), ...(renamed.sparseInitializer ?? [])],
  };
  return { proto: { ...original, graph }, graph };
}

/** A copy of a graph, and of every body below it, with other names of values; tensors are shared. */
function prefixed(graph: GraphProto, rename: (name: string) => string): GraphProto {
  const named = <T extends { name?: string | null }>(value: T): T => ({
    ...value,
    name: rename(value.name ?? ''),
  });
  return {
    ...graph,
    input: graph.input.map(named),
    output: graph.output.map(named),
    initializer: graph.initializer.map(named),
    sparseInitializer: (graph.sparseInitializer ?? []).map((sparse) => ({
      ...sparse,
      ...(sparse.values && { values: named(sparse.values) }),
    })),
    valueInfo: [],
    node: graph.node.map((node) => ({
      ...node,
      name: node.name ? `${PREFIX}${node.name}` : '',
      input: node.input.map(rename),
      output: node.output.map(rename),
      attribute: node.attribute.map((a) => (a.g ? { ...a, g: prefixed(a.g, rename) } : a)),
    })),
  };
}
