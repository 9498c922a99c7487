import type { ChannelGroup } from '../../graph/channels/groups.js';
import { floatAttribute, opName } from '../../graph/nodes.js';
import { Model, type NodeProto } from '../../onnx/index.js';
import { equalize } from './maths/equalize.js';
import type { Network } from './network.js';
import { storedWeights } from './statistics/layers.js';
import { type LayerVisit, propagate } from './statistics/propagate.js';
import { type ParameterValue, writeParameters } from './write-parameters.js';

/** Ops that let a positive factor of each channel through. */
const homogeneous = new Set([
  ...['Relu', 'LeakyRelu', 'MaxPool', 'AveragePool', 'GlobalAveragePool', 'Identity', 'Dropout'],
  ...['Flatten', 'Reshape', 'Squeeze', 'Unsqueeze'],
]);

/**
 * The same function with equal ranges of weights on both sides of every channel, for weights that have one
 * scale: see maths/equalize.ts. Only between two layers that have the channels for themselves, without a
 * BatchNormalization, which would undo it.
 * @returns undefined where there is no such pair of layers
 */
export async function equalizeLayers(network: Network): Promise<Model | undefined> {
  const { model, graph, shapes, groups } = network;
  const visits = new Map<NodeProto, LayerVisit>();
  await propagate(model, graph, {
    shapes,
    onLayer: (visit) => {
      visits.set(visit.node, visit);
      return undefined;
    },
  });
  const weights = new Map<NodeProto, Float64Array>();
  const changed: ParameterValue[] = [];
  for (const group of groups) {
    const pair = pairOf(network, group, visits);
    if (!pair) continue;
    const { maker, reader } = pair;
    const bias = maker.layer.bias ?? new Float64Array(group.channels);
    const { filters } = reader.layer;
    const inner = filters.weights.length / (filters.outputs * filters.inputs);
    const view = { outer: filters.outputs, channels: filters.inputs, inner };
    const { w, b, v } = equalize(current(weights, maker), bias, current(weights, reader), view);
    weights.set(maker.node, w).set(reader.node, v);
    if (maker.bias)
      changed.push({
        output: maker.bias.node.output[0],
        input: maker.bias.input,
        shape: [b.length],
        values: b,
      });
  }
  if (weights.size === 0) return undefined;
  for (const [node, values] of weights) {
    const { storage, layer } = visits.get(node) as LayerVisit;
    const stored = storedWeights(storage, { ...layer.filters, weights: values });
    changed.push({
      output: node.output[0],
      input: storage.input,
      shape: stored.dims,
      values: stored.values,
    });
  }
  const equalized = new Model({ ...model.proto }, undefined, model.path);
  writeParameters(equalized, changed);
  return equalized;
}

const current = (weights: ReadonlyMap<NodeProto, Float64Array>, { node, layer }: LayerVisit) =>
  weights.get(node) ?? layer.filters.weights;

/** The layer that makes a group's channels and the one that reads them, if there are no others. */
function pairOf(
  { graph }: Network,
  { producers, consumers, parameters, tensors, skip }: ChannelGroup,
  visits: ReadonlyMap<NodeProto, LayerVisit>,
): { maker: LayerVisit; reader: LayerVisit } | undefined {
  if (skip || producers.length !== 1 || consumers.length !== 1) return undefined;
  const maker = visits.get(producers[0].node);
  const reader = visits.get(consumers[0].node);
  if (!maker || !reader || maker.norm || maker.layer.filters.groups > 1) return undefined;
  if (reader.layer.filters.groups > 1 || maker.node === reader.node) return undefined;
  if (floatAttribute(maker.node, 'beta', 1) !== 1) return undefined;
  const own = [maker.node, maker.bias?.node, reader.node];
  const lets = tensors.every(({ name }) =>
    graph.root.values
      .get(name)
      ?.consumers.every(({ node }) => own.includes(node) || homogeneous.has(opName(node))),
  );
  return lets && parameters.every(({ node }) => own.includes(node)) ? { maker, reader } : undefined;
}
