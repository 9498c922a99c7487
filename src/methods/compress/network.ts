import { modelError, type ResectError } from '../../errors.js';
import { type ChannelGroup, findChannelGroups } from '../../graph/channels/groups.js';
import { inlineFunctions } from '../../graph/functions.js';
import { Graph } from '../../graph/graph.js';
import { type FoundLayers, weightLayers } from '../../graph/weight-layers.js';
import { Workspace } from '../../graph/workspace.js';
import { Model, type NodeProto } from '../../onnx/index.js';
import { type ExampleShapes, exampleShapes } from '../example-shapes.js';
import { layerRule } from '../layer-globs.js';
import type { Calibration } from '../method.js';
import { range } from './maths/mixing.js';
import { keptCount } from './maths/select.js';
import type { CompressParameters } from './parameters.js';

/** A model, its layers, and which of its channels go together. */
export interface Network extends ExampleShapes {
  /** With local functions inlined. */
  model: Model;
  graph: Graph;
  groups: ChannelGroup[];
  /** Layers whose weight can be rounded, in file order, and those that cannot be treated at all. */
  found: FoundLayers;
  /** The name of a layer in reports. */
  nameOf: (node: NodeProto) => string;
}

/** @throws {ResectError} exit 5 when it has no layers, and 5 and 6 as `exampleShapes` */
export async function readNetwork(source: Model, calibration?: Calibration): Promise<Network> {
  const proto = inlineFunctions(source.proto);
  const model = proto === source.proto ? source : new Model(proto, undefined, source.path);
  const graph = new Graph(proto);
  const found = weightLayers(new Workspace(model));
  if (found.layers.length === 0) throw noLayers(found);
  const example = await exampleShapes(model, calibration);
  const names = new Map(found.layers.map(({ node, name }) => [node, name]));
  return {
    model,
    graph,
    ...example,
    groups: findChannelGroups(graph, example.shapes),
    found,
    nameOf: (node) => names.get(node) ?? (node.name || node.output[0]),
  };
}

function noLayers({ skipped }: FoundLayers): ResectError {
  const reasons = new Set(skipped.map(({ reason }) => reason));
  return modelError('There is no layer to compress.', {
    expected: 'at least one Conv, ConvTranspose, Gemm or MatMul with a constant weight',
    got: [...reasons].join('; ') || 'no linear layer',
    hint: 'See `resect inspect`.',
  });
}

/** How many channels of a group are to stay, or why all do. */
export type Wish = { keep: number } | { reason: string };

/** What the parameters ask of every group, before statistics are looked at. */
export function wishes(
  { groups, nameOf }: Network,
  { ratio, layerRatio, align }: CompressParameters,
  selects: (layer: string) => boolean,
): Map<ChannelGroup, Wish> {
  const ruled = layerRule(layerRatio);
  return new Map(
    groups.map((group): [ChannelGroup, Wish] => {
      const names = group.producers.map(({ node }) => nameOf(node));
      const own = names.map(ruled).find((value) => value !== undefined) ?? ratio;
      if (group.skip) return [group, { reason: group.skip }];
      if (own === 0) return [group, { reason: 'ratio 0' }];
      if (!names.every(selects)) return [group, { reason: 'not selected' }];
      if (group.consumers.length === 0) return [group, { reason: 'no layer reads them' }];
      const blocks = group.blocks?.length ?? 1;
      const keep = keptCount(group.channels, { ratio: own, align, groups: blocks });
      if (keep === group.channels)
        return [group, { reason: `a multiple of ${align} (--align) keeps them all` }];
      return [group, { keep }];
    }),
  );
}

/** The channels that stay, by group, ascending; groups that are left out keep all. */
export type Kept = ReadonlyMap<ChannelGroup, readonly number[]>;

/** Positions, along one axis, of the channels that stay. */
export class KeptPositions {
  readonly #rows = new Map<NodeProto, Uint32Array>();
  readonly #tensors = new Map<string, Uint8Array>();

  constructor(kept: Kept) {
    for (const [group, channels] of kept) {
      const stays = new Uint8Array(group.channels);
      for (const channel of channels) stays[channel] = 1;
      const goes = (channel: number) => channel >= 0 && !stays[channel];
      for (const { node, channels: map } of group.producers)
        this.#rows.set(
          node,
          range(map.length).filter((i) => !goes(map[i])),
        );
      for (const { name, channels: map } of group.tensors) {
        const mask = this.#tensors.get(name) ?? new Uint8Array(map.length).fill(1);
        for (const [i, channel] of map.entries()) if (goes(channel)) mask[i] = 0;
        this.#tensors.set(name, mask);
      }
    }
  }

  /** Output channels of a layer; undefined when it keeps all. */
  outputs(node: NodeProto): Uint32Array | undefined {
    return this.#rows.get(node);
  }

  /** Channels, of `count` in all, of a tensor; undefined when it keeps all. */
  inputs(tensor: string, count: number): Uint32Array | undefined {
    const mask = this.#tensors.get(tensor);
    if (!mask || mask.every((stays) => stays)) return undefined;
    return range(count).filter((channel) => mask[positionOf(channel, count, mask.length)]);
  }
}

/** Where a channel begins along an axis that a Flatten may have put its pixels on, side by side. */
export const positionOf = (channel: number, channels: number, length: number): number =>
  channel * (length / channels);
