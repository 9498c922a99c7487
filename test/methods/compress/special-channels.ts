import type { ChannelGroup, ChannelParameter } from '../../../src/graph/channels/groups.js';
import { keptCount } from '../../../src/methods/compress/maths/select.js';
import { readNetwork } from '../../../src/methods/compress/network.js';
import { encodeModel, type ModelProto, parseModel } from '../../../src/onnx/index.js';
import { edited } from './support.js';

/** Channels of a group that can go without loss, and for each one that stays in its stead. */
export type Chosen = Map<ChannelGroup, Map<number, number>>;

/**
 * As many channels of every group as compression at this ratio removes: of each block the last ones, with
 * the first ones to stand for them.
 */
export async function removable(proto: ModelProto, ratio: number): Promise<Chosen> {
  const { groups } = await readNetwork(parseModel(encodeModel(proto)));
  const free = groups.filter(({ skip, consumers }) => !skip && consumers.length > 0);
  return new Map(
    free.map((group) => {
      const { channels, blocks = [[...Array(channels).keys()]] } = group;
      const gone =
        (channels - keptCount(channels, { ratio, groups: blocks.length })) / blocks.length;
      const pairs = blocks.flatMap((block) =>
        block.slice(-gone).map((channel, i): [number, number] => [channel, block[i]]),
      );
      return [group, new Map(pairs)];
    }),
  );
}

/** Of those, the groups that only kernels of one tap read, which no border disturbs. */
export const readPointwise = (chosen: Chosen): Chosen =>
  new Map(
    [...chosen].filter(([{ consumers }]) =>
      consumers.every(({ view }) => view.axes.slice(2).every(({ size }) => size === 1)),
    ),
  );

/** Where an element of a parameter is, and what it is to be. */
interface Place {
  site: ChannelParameter;
  values: Float32Array;
  at: number;
  channel: number;
  /** The same element of the channel that stays. */
  twin: number;
}

/** The model with the parameters that make the channels changed, an element at a time. */
async function changed(
  proto: ModelProto,
  chosen: Chosen,
  change: (place: Place) => void,
): Promise<ModelProto> {
  const sites = [...chosen].flatMap(([{ producers, parameters }, pairs]) =>
    [...producers, ...parameters].map((site) => ({ site, pairs })),
  );
  return edited(proto, (name, values, shape) => {
    for (const { site, pairs } of sites) {
      if (site.view.tensor.name !== name) continue;
      const { axis, channels } = site;
      const inner = shape.slice(axis + 1).reduce((n, d) => n * d, 1);
      const size = shape[axis];
      // Along axis 1 of a grouped weight stand the channels of one of its groups.
      const parts = channels.length / size;
      for (const at of values.keys()) {
        const first = Math.floor((at * parts) / values.length) * (parts > 1 ? size : 0);
        const position = first + (Math.floor(at / inner) % size);
        const channel = channels[position];
        const other = pairs.get(channel);
        if (other === undefined) continue;
        // A depthwise convolution may make several channels of one.
        const repeated = position - channels.indexOf(channel);
        const twin = at + (channels.indexOf(other) + repeated - position) * inner;
        change({ site, values, at, channel, twin });
      }
    }
  });
}

type Role = 'filter' | 'depthwise filter' | 'scale' | 'shift' | 'statistics';

function roleOf({ node, input }: ChannelParameter, chosen: Chosen): Role {
  if (node.opType === 'BatchNormalization')
    return input === 1 ? 'scale' : input === 2 ? 'shift' : 'statistics';
  const makes = [...chosen.keys()].some(({ producers }) =>
    producers.some((p) => p.node === node && p.input === input),
  );
  if (makes) return 'filter';
  return node.opType === 'Conv' && input === 1 ? 'depthwise filter' : 'shift';
}

/** The model with these channels at `value`, each. */
export const withConstants = (
  proto: ModelProto,
  chosen: Chosen,
  value: (channel: number) => number,
): Promise<ModelProto> =>
  changed(proto, chosen, ({ site, values, at, channel }) => {
    const role = roleOf(site, chosen);
    if (role === 'shift') values[at] = value(channel);
    else if (role === 'filter' || role === 'scale') values[at] = 0;
  });

/** The model in which these channels are copies of those that stay; what reads them is as it was. */
export const withTwins = (proto: ModelProto, chosen: Chosen): Promise<ModelProto> =>
  changed(proto, chosen, ({ values, at, twin }) => {
    values[at] = values[twin];
  });
