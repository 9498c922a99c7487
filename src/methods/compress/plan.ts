import { usageError } from '../../errors.js';
import type { ChannelGroup, ChannelParameter } from '../../graph/channels/groups.js';
import type { Model } from '../../onnx/index.js';
import { layerRule } from '../layer-globs.js';
import { type BitsOf, givenBits } from './bits.js';
import { refuseQuantized } from './formats/refuse-quantized.js';
import type { CompressLayer } from './layers.js';
import { type Network, readNetwork, type Wish, wishes } from './network.js';
import type { CompressParameters } from './parameters.js';

/** What the parameters ask for, layer by layer; weights are not looked at. */
export async function planCompression(
  model: Model,
  given: CompressParameters,
  selects: (layer: string) => boolean,
): Promise<CompressLayer[]> {
  refuseQuantized(model.proto);
  const network = await readNetwork(model);
  checkRules(network, given);
  const bits = givenBits(given, namesOf(network), selects);
  return describeLayers(network, wishes(network, given, selects), bits);
}

/** @throws {ResectError} exit 2 for a rule that matches no layer */
export function checkRules(network: Network, { layerRatio, layerBits }: CompressParameters): void {
  for (const [flag, rules] of [
    ['--layer-ratio', layerRatio],
    ['--layer-bits', layerBits],
  ] as const)
    for (const rule of rules)
      if (!namesOf(network).some((name) => layerRule([rule])(name) !== undefined))
        throw usageError(`${flag} matches no layer.`, {
          got: rule,
          hint: 'See the names with --dry-run.',
        });
}

export const namesOf = ({ found }: Network): string[] => found.layers.map(({ name }) => name);

/** Every layer with the channels and bits that it is to have, in file order. */
export function describeLayers(
  { found, groups }: Network,
  wanted: ReadonlyMap<ChannelGroup, Wish>,
  bitsOf: BitsOf,
): CompressLayer[] {
  const described = found.layers.map(({ name, op, shape, node }): CompressLayer => {
    const isAt = (site: ChannelParameter) => site.node === node && site.input === 1;
    const site = (g: ChannelGroup) => [...g.producers, ...g.parameters].find(isAt);
    const group = groups.find(site);
    // A depthwise convolution may make several channels of each.
    const each = group ? (site(group)?.channels.length ?? 0) / group.channels : 0;
    const wish = group && wanted.get(group);
    const bits = bitsOf(name);
    const cut = wish && 'keep' in wish;
    const reads = groups.some(
      (g) => isCut(wanted.get(g)) && g.consumers.some((c) => c.node === node),
    );
    const kept = wish && 'reason' in wish ? wish.reason : undefined;
    const changed = bits !== undefined || cut || reads;
    return {
      name,
      op,
      shape,
      status: changed ? 'changed' : 'unchanged',
      ...(!changed && kept && { reason: kept }),
      ...(group && {
        channels: {
          before: each * group.channels,
          after: each * (cut ? wish.keep : group.channels),
        },
      }),
      ...(kept && { kept }),
      ...(bits !== undefined && { bits }),
    };
  });
  const skipped = found.skipped.map(({ name, op, shape, reason }): CompressLayer => {
    return { name, op, ...(shape && { shape }), status: 'skipped', reason };
  });
  return [...described, ...skipped];
}

const isCut = (wish: Wish | undefined): boolean => wish !== undefined && 'keep' in wish;
