import type { ChannelGroup } from '../../graph/channels/groups.js';
import { keepChannels } from '../../graph/channels/slice.js';
import type { ModelProto } from '../../onnx/index.js';
import type { Part } from '../calibration/collect.js';
import type { Context } from '../method.js';
import { KeptPositions, type Network, type Wish } from './network.js';
import type { CompressParameters } from './parameters.js';
import { selectChannels } from './selection.js';
import type { LayerNode } from './statistics/layers.js';
import { measureMoments } from './statistics/measured.js';
import { type PropagateOptions, propagate } from './statistics/propagate.js';

/** What a walk knows of a network besides its parameters. */
export type Statistics = Omit<PropagateOptions, 'onLayer' | 'shapes'>;

/** A network whose channels are chosen; it is cut, and nothing is repaired yet. */
export interface Pruned {
  network: Network;
  /** What became of every group. */
  outcome: Map<ChannelGroup, Wish>;
  positions: KeptPositions;
  /** The model without the channels that go, with its parameters as they were. */
  cut: ModelProto;
  statistics: Statistics;
  /** The model with its calibration data, if there is some. */
  part?: Part;
}

/** Chooses the channels that go, and cuts them. */
export async function prune(
  network: Network,
  wanted: ReadonlyMap<ChannelGroup, Wish>,
  given: CompressParameters,
  { calibration, threads, progress }: Context,
): Promise<Pruned> {
  const { model } = network;
  const part = calibration && {
    model,
    proto: model.proto,
    calibration,
    threads,
    progress: (done: number, total: number) => progress('measure', done, total),
  };
  const measured = part && (await measureMoments(part, await layersOf(network)));
  const statistics: Statistics = { measured, steps: new Map() };
  progress('select', 0, 1);
  const { kept, refused } = await selectChannels(network, wanted, given, statistics);
  const outcome = new Map(wanted);
  for (const [group, reason] of refused) outcome.set(group, { reason });
  for (const [group, channels] of kept) outcome.set(group, { keep: channels.length });
  const cut = kept.size > 0 ? await keepChannels(model, kept) : model.proto;
  return { network, outcome, positions: new KeptPositions(kept), cut, statistics, part };
}

const none = new Float64Array();

/** The layers of a network without their weights. */
async function layersOf({ model, graph, shapes }: Network): Promise<LayerNode[]> {
  const layers: LayerNode[] = [];
  await propagate(model, graph, {
    shapes,
    onLayer: (visit) => {
      const { filters } = visit.layer;
      layers.push({ ...visit, layer: { filters: { ...filters, weights: none } } });
      return undefined;
    },
  });
  return layers;
}
