import type { NodeProto } from '../../onnx/index.js';
import type { ConstantView } from '../constants.js';
import type { Graph } from '../graph.js';
import { topologicalOrder } from '../topology.js';
import { type BalanceSite, ChannelAnalysis, type Place, type Shapes } from './analysis.js';
import { followNode } from './rules/index.js';

/**
 * Positions along an axis as channels of a group: the group's channel at each position, -1 where it
 * belongs to another group (in a Concat).
 */
export type ChannelMap = Int32Array;

/** A parameter with channels of the group along an axis. */
export interface ChannelParameter {
  node: NodeProto;
  /** Which of the node's inputs it is. */
  input: number;
  view: ConstantView;
  /** Axis of the view. */
  axis: number;
  /**
   * By position along the axis. Of a grouped convolution's weight `[out, in/groups, ...]` it is as long
   * as the whole of the channels, though axis 1 holds those of one of its groups only.
   */
  channels: ChannelMap;
}

/** A weight that reads channels of the group. */
export interface ChannelConsumer extends ChannelParameter {
  /** The activation that it multiplies: one of the group's tensors, with the same map. */
  tensor: string;
}

/** An activation with channels of the group along an axis. */
export interface ChannelTensor {
  name: string;
  axis: number;
  channels: ChannelMap;
  /** Positions side by side that were the pixels of one channel before they were flattened; else 1. */
  repeat: number;
}

/** A stored number that counts the channels in a list: a shape, sizes of a Split, a convolution's groups. */
export interface ChannelCount {
  place: Place;
  /** Element of a list; absent where an attribute is a single number. */
  index?: number;
  /** The list as it is to be written where the model leaves it out. */
  implied?: number[];
  channels: ChannelMap;
}

/** Channels of a model that one decision is made for: which of them stay. */
export interface ChannelGroup {
  /** The first producer's name, or that of its first output. */
  name: string;
  /** How many channels there are; channel i is that of the first producer's output i, as a rule. */
  channels: number;
  /** Why no channel may be removed; absent when they may. */
  skip?: string;
  /** Weights with the channels along their output axis, in topological order. */
  producers: ChannelParameter[];
  /** What stands between, element by element: biases, normalisations, slopes, depthwise weights, constants. */
  parameters: ChannelParameter[];
  /** Weights with the channels along their input axis. */
  consumers: ChannelConsumer[];
  /** Activations in the order they are computed. */
  tensors: ChannelTensor[];
  /** Stored numbers that change with the number of channels. */
  counts: ChannelCount[];
  /** Channels in blocks that must keep equal counts: those of a grouped convolution's groups. */
  blocks?: number[][];
  /** Proper subsets of the channels of which at least one must stay: parts of a Split. */
  parts: number[][];
}

/**
 * Which channels of a model can only be removed together, and every place that has to change with
 * them: dependency groups as in DepGraph, arXiv 2301.12900. Channels are followed through the main
 * graph from each Conv, ConvTranspose, Gemm and MatMul to the next ones. Groups that may not be
 * pruned are listed, too, with the reason.
 *
 * A tensor that several nodes read is listed for each of them; they need not be cut alike.
 * @param shapes of values, for inputs of some size; without a value's shape the channels that are
 *   flattened, reshaped or broadcast there must stay
 * @returns in the order of their first producers
 * @throws {ResectError} exit 5 on a cycle
 */
export function findChannelGroups(graph: Graph, shapes: Shapes): ChannelGroup[] {
  const analysis = new ChannelAnalysis(graph, shapes);
  for (const node of topologicalOrder(graph.root.graph)) followNode(analysis, node);
  keepInterface(analysis);
  const assembly = new Assembly(analysis);
  for (const balance of analysis.balances) assembly.balance(balance);
  return assembly.groups();
}

/** Keeps the channels of the model's outputs. */
function keepInterface(a: ChannelAnalysis): void {
  for (const { name = '' } of a.graph.root.graph.output) {
    const value = a.values.get(name);
    if (value) a.block(value.ids, 'it is an output of the model');
    for (const dim of a.vectors.get(name) ?? [])
      if (dim.kind === 'channels') a.block(dim.ids, 'its length is an output of the model');
  }
}

/** Makes groups of what the analysis found: one for each family of channels that has a producer. */
class Assembly {
  readonly #analysis: ChannelAnalysis;
  readonly #groups = new Map<number, ChannelGroup>();
  /** A unit's number in its group. */
  readonly #numbers = new Map<number, number>();

  constructor(analysis: ChannelAnalysis) {
    this.#analysis = analysis;
    for (const { role, node, ids } of analysis.parameters)
      if (role === 'producer' && ids.length > 0) this.#open(node, ids);
    for (const value of analysis.values.values()) this.#number(value.ids);
    for (const [name, { axis, ids, repeat }] of analysis.values)
      this.#each(ids, (group, channels) => group.tensors.push({ name, axis, channels, repeat }));
    for (const { role, ids, tensor = '', ...site } of analysis.parameters)
      this.#each(ids, (group, channels) => {
        if (role === 'producer') group.producers.push({ ...site, channels });
        else if (role === 'consumer') group.consumers.push({ ...site, tensor, channels });
        else group.parameters.push({ ...site, channels });
      });
    for (const { ids, ...count } of analysis.counts)
      this.#each(ids, (group, channels) => group.counts.push({ ...count, channels }));
    for (const [id, reason] of analysis.reasons) {
      const group = this.#groups.get(analysis.families.find(id));
      if (group) group.skip ??= reason;
    }
    for (const group of this.#groups.values()) {
      group.parts = properSubsets(group);
      if (group.channels < 2) group.skip ??= 'a single channel';
    }
  }

  groups(): ChannelGroup[] {
    return [...this.#groups.values()];
  }

  #open(node: NodeProto, ids: Int32Array): void {
    const family = this.#analysis.families.find(ids[0]);
    if (this.#groups.has(family)) return;
    this.#groups.set(family, {
      name: node.name || node.output[0],
      channels: 0,
      producers: [],
      parameters: [],
      consumers: [],
      tensors: [],
      counts: [],
      parts: [],
    });
  }

  #number(ids: Int32Array): void {
    const { units, families } = this.#analysis;
    for (const id of ids) {
      const unit = units.find(id);
      const group = this.#groups.get(families.find(id));
      if (group && !this.#numbers.has(unit)) this.#numbers.set(unit, group.channels++);
    }
  }

  /** Calls `add` for each group with channels among `ids`, with the map of positions to its channels. */
  #each(ids: Int32Array, add: (group: ChannelGroup, channels: ChannelMap) => void): void {
    const { units, families } = this.#analysis;
    const maps = new Map<number, ChannelMap>();
    for (const [position, id] of ids.entries()) {
      const family = families.find(id);
      const map = maps.get(family) ?? new Int32Array(ids.length).fill(-1);
      maps.set(family, map);
      map[position] = this.#numbers.get(units.find(id)) ?? -1;
    }
    for (const [family, map] of maps) {
      const group = this.#groups.get(family);
      if (group) add(group, map);
    }
  }

  /** Notes that consecutive parts of `ids` keep equal counts, where that can be said of one group. */
  balance({ ids, parts }: BalanceSite): void {
    this.#each(ids, (group, channels) => {
      const blocks = channels.includes(-1) ? undefined : blocksOf(channels, parts);
      if (!blocks) group.skip ??= 'groups of a convolution would keep different counts';
      else if (blocks.length > 1) {
        const merged = group.blocks ? finer(group.blocks, blocks) : blocks;
        if (merged) group.blocks = merged;
        else group.skip ??= 'grouped convolutions divide it in different ways';
      }
    });
  }
}

/**
 * The channels in each part; a single block where every channel is as often in each part, so that
 * counts are always equal; undefined where they can be neither.
 */
function blocksOf(channels: ChannelMap, parts: number): number[][] | undefined {
  const size = channels.length / parts;
  const lists = Array.from({ length: parts }, (_, i) => [
    ...channels.subarray(i * size, (i + 1) * size),
  ]);
  const sorted = lists.map((list) => [...list].sort((a, b) => a - b));
  if (sorted.every((list) => list.join() === sorted[0].join())) return [sorted[0]];
  const distinct = sorted.map((list) => [...new Set(list)]);
  const total = new Set(channels).size;
  const times = channels.length / total;
  const even =
    distinct.every((list) => list.length * parts === total) &&
    sorted.every((list) => list.every((c, i) => c === list[i - (i % times)]));
  return even ? distinct : undefined;
}

/** The finer of two divisions, equal counts in which are equal counts in the other. */
function finer(a: number[][], b: number[][]): number[][] | undefined {
  const [fine, coarse] = a.length >= b.length ? [a, b] : [b, a];
  const blockOf = new Map(coarse.flatMap((block, i) => block.map((c) => [c, i] as const)));
  const nested = fine.every((block) => {
    const owner = blockOf.get(block[0]);
    return owner !== undefined && block.every((c) => blockOf.get(c) === owner);
  });
  return nested && fine.flat().length === coarse.flat().length ? fine : undefined;
}

/** Sets of channels that some tensor has no others than. */
function properSubsets({ tensors, channels }: ChannelGroup): number[][] {
  const subsets = new Map<string, number[]>();
  for (const tensor of tensors) {
    const own = new Set(tensor.channels);
    if (own.has(-1) || own.size === channels) continue;
    const sorted = [...own].sort((a, b) => a - b);
    subsets.set(sorted.join(), sorted);
  }
  return [...subsets.values()];
}
