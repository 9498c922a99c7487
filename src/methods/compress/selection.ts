/** Which channels of each group stay: the first walk through a network. */
import type { ChannelGroup, ChannelParameter } from '../../graph/channels/groups.js';
import type { NodeProto } from '../../onnx/index.js';
import { outputAffine } from './maths/batch-norm.js';
import { type ChannelView, eliminate, importance } from './maths/elimination.js';
import type { Limits } from './maths/limits.js';
import type { Moments } from './maths/moments.js';
import { geometricMedianDistances, highest, l1Norms, l2Norms } from './maths/select.js';
import { type Network, positionOf, type Wish } from './network.js';
import type { CompressParameters } from './parameters.js';
import { selectionOf } from './parameters.js';
import type { LayerNode } from './statistics/layers.js';
import { type LayerVisit, type PropagateOptions, propagate } from './statistics/propagate.js';

export interface Selection {
  /** By group, the channels that stay, ascending. */
  kept: Map<ChannelGroup, number[]>;
  /** Why groups that were to lose channels lose none. */
  refused: Map<ChannelGroup, string>;
  /** Expected squared error of what reads a group, by its expected square, for the channels that go. */
  damage: Map<ChannelGroup, number>;
}

/**
 * Chooses channels of every group whose wish is to lose some: greedily, by the cost to all layers that
 * read them, or by the norms of the filters that make them.
 */
export async function selectChannels(
  network: Network,
  wishes: ReadonlyMap<ChannelGroup, Wish>,
  given: CompressParameters,
  options: Omit<PropagateOptions, 'onLayer' | 'shapes'>,
): Promise<Selection> {
  const selection: Selection = { kept: new Map(), refused: new Map(), damage: new Map() };
  const targets = new Map<ChannelGroup, Target>();
  for (const [group, wish] of wishes)
    if ('keep' in wish)
      targets.set(group, { keep: wish.keep, views: [], filters: [], unseen: readers(group) });
  if (targets.size === 0) return selection;

  const greedy = selectionOf(given) === 'greedy';
  const unread = await propagate(network.model, network.graph, {
    ...options,
    shapes: network.shapes,
    onLayer: (visit) => {
      for (const [group, target] of targets) {
        target.unseen.delete(visit.node);
        if (greedy) target.views.push(...viewsOf(group, visit));
        else if (makes(group, visit.node)) target.filters.push(visit);
      }
      return undefined;
    },
  });
  const reasons = new Map(unread.map(({ node, reason }) => [node, reason]));
  for (const [group, { keep, views, filters, unseen }] of targets) {
    const [hidden] = unseen;
    if (hidden) {
      const reason = reasons.get(hidden) ?? 'its weight is not followed';
      selection.refused.set(group, `${hidden.name || hidden.output[0]} reads it: ${reason}`);
      continue;
    }
    const limits: Limits = { blocks: group.blocks, parts: group.parts };
    const eliminated = greedy ? eliminate(group.channels, views, { keep, limits }) : undefined;
    if (greedy && !eliminated) {
      selection.refused.set(group, 'the covariance of its channels is not definite');
      continue;
    }
    if (eliminated) selection.damage.set(group, eliminated.damage);
    const kept = eliminated?.kept ?? highest(scores(group, filters, given), keep, limits);
    selection.kept.set(group, Array.from(kept));
  }
  return selection;
}

interface Target {
  keep: number;
  views: ChannelView[];
  /** The layers that make the channels. */
  filters: LayerNode[];
  /** Layers that read or make the channels and that the walk has not come to. */
  unseen: Set<NodeProto>;
}

const readers = ({ consumers, producers }: ChannelGroup): Set<NodeProto> =>
  new Set([...producers, ...consumers].map(({ node }) => node));

const makes = ({ producers }: ChannelGroup, node: NodeProto): ChannelParameter | undefined =>
  producers.find((producer) => producer.node === node);

/** What a layer reads of a group, in the group's channels. */
function viewsOf(group: ChannelGroup, { node, layer, input }: LayerVisit): ChannelView[] {
  if (!group.consumers.some((consumer) => consumer.node === node)) return [];
  const tensor = group.tensors.find(({ name }) => name === node.input[0]);
  if (!tensor) return [];
  const { filters, norm } = layer;
  const { weights, outputs, inputs, groups } = filters;
  const channels = inputs / groups;
  const axis = { outer: outputs, channels, inner: weights.length / (outputs * channels) };
  const scale = norm && outputAffine(outputs, norm).scale;
  const seen = importance(weights, axis, scale, groups);
  const places = Array.from(
    { length: inputs },
    (_, i) => tensor.channels[positionOf(i, inputs, tensor.channels.length)],
  );
  return [
    {
      covariance: scattered(input.original.covariance, places, group.channels),
      importance: scattered(seen, places, group.channels),
    },
  ];
}

/** a [M, M] with its rows and columns at `places` of an [N, N]; those at -1 are left out. */
function scattered(
  a: Moments['covariance'],
  places: readonly number[],
  channels: number,
): Float64Array {
  const m = places.length;
  if (m === channels && places.every((place, i) => place === i)) return a;
  const out = new Float64Array(channels * channels);
  for (let i = 0; i < m; i++) {
    if (places[i] < 0) continue;
    for (let j = 0; j < m; j++)
      if (places[j] >= 0) out[places[i] * channels + places[j]] += a[i * m + j];
  }
  return out;
}

/** By channel, the score of its filters: raw, or by their mean square where several layers make it. */
function scores(
  group: ChannelGroup,
  layers: readonly LayerNode[],
  given: CompressParameters,
): Float64Array {
  const parts = layers.map(({ node, layer: { filters } }) => {
    const width = filters.weights.length / filters.outputs;
    const map = makes(group, node)?.channels ?? [];
    const square = filters.weights.reduce((sum, w) => sum + w * w, 0) / filters.weights.length;
    const unit = layers.length > 1 && square > 0 ? 1 / Math.sqrt(square) : 1;
    return { weights: filters.weights, width, map, unit };
  });
  const width = parts.reduce((sum, part) => sum + part.width, 0);
  const rows = new Float64Array(group.channels * width);
  let start = 0;
  for (const part of parts) {
    for (const [row, channel] of part.map.entries()) {
      const filter = part.weights.subarray(row * part.width, (row + 1) * part.width);
      for (const [k, w] of filter.entries()) rows[channel * width + start + k] += part.unit * w;
    }
    start += part.width;
  }
  const norm = { l1: l1Norms, l2: l2Norms, gm: geometricMedianDistances, greedy: l2Norms };
  return norm[selectionOf(given)](rows, group.channels, width);
}
