import {
  AttributeType,
  type DType,
  dtypeBits,
  encodeFloat32,
  type Model,
  type ModelProto,
  makeTensor,
  type NodeProto,
  readTensorBytes,
  tensorInfo,
  type ValueInfoProto,
} from '../../onnx/index.js';
import { int, int64Tensor } from '../build.js';
import { type Axis, Constants, type ConstantView, isView } from '../constants.js';
import { Graph } from '../graph.js';
import { attribute } from '../nodes.js';
import { gather, gatherGrouped, type Kept } from './gather.js';
import type { ChannelCount, ChannelGroup, ChannelMap, ChannelParameter } from './groups.js';
import { type NewConstant, Rewrite } from './rewrite.js';

/** 1 for positions along an axis that stay. */
type Mask = Uint8Array;

/** A parameter and what stays of it along its axes. */
interface Cut {
  node: NodeProto;
  input: number;
  view: ConstantView;
  masks: Map<number, Mask>;
  /** The axis along which it reads channels, if any go. */
  inAxis?: number;
}

/** A number that changes. */
interface Recount extends Omit<ChannelCount, 'channels'> {
  mask: Mask;
}

/**
 * The model without the channels that are not kept: smaller weights, no masks. All groups are cut in
 * one go, since a weight has channels of one along its rows and of another along its columns.
 *
 * Values are read through `model.edits`: a changed bias or running mean is cut with its change. The
 * model itself stays as it is; what is not cut is shared with it. To write the result, put its graph
 * into `model.proto`. Metadata stays, and descriptions of values are corrected.
 * @param kept by group (of `findChannelGroups` for this very model) its channels that stay, ascending;
 *   groups that are left out stay whole
 * @param weights new weights of consumers, by node: float32, row-major in the order of the weight's axes,
 *   with the kept positions alone along the input axis and all along the output axis; a grouped
 *   convolution's in the same way, `[out, kept / groups, ...]`
 * @throws {ResectError} exit 5 or 7 when a weight cannot be read
 */
export async function keepChannels(
  model: Model,
  kept: ReadonlyMap<ChannelGroup, readonly number[]>,
  weights: ReadonlyMap<NodeProto, Float32Array> = new Map(),
): Promise<ModelProto> {
  const cuts = new Map<NodeProto, Cut[]>();
  const recounts = new Map<string, Recount>();
  const lengths = new Map<string, { axis: number; mask: Mask }>();
  for (const [group, channels] of kept) {
    const stays = check(group, channels);
    for (const parameter of [...group.producers, ...group.parameters, ...group.consumers])
      narrow(cutOf(cuts, parameter).masks, parameter.axis, parameter.channels, stays);
    for (const { node, input, axis } of group.consumers) {
      const cut = cuts.get(node)?.find((c) => c.input === input);
      if (cut) cut.inAxis = axis;
    }
    for (const { channels: map, ...count } of group.counts) {
      const { node, ...where } = count.place;
      const key = JSON.stringify([node.output, where, count.index]);
      const recount = recounts.get(key) ?? { ...count, mask: new Uint8Array(map.length).fill(1) };
      exclude(recount.mask, map, stays);
      recounts.set(key, recount);
    }
    for (const { name, axis, channels: map } of group.tensors) {
      const known = lengths.get(name);
      const mask = known?.mask ?? new Uint8Array(map.length).fill(1);
      exclude(mask, map, stays);
      lengths.set(name, { axis, mask });
    }
  }

  const rewrite = new Rewrite(model.proto);
  const changes: NewConstant[] = [];
  for (const node of weights.keys())
    if (!cuts.has(node)) throw new Error(`new weight for ${node.name}, which is not cut`);
  for (const cut of [...cuts.values()].flat()) changes.push(await cutConstant(model, cut, weights));
  changes.push(...(await recount(model, rewrite, [...recounts.values()])));
  rewrite.constants(changes);
  return rewrite.finish((value) => describe(value, lengths.get(value.name ?? '')));
}

/** Whether each channel stays. @throws Error when the group cannot be left with these channels */
function check(group: ChannelGroup, kept: readonly number[]): Mask {
  const fail = (why: string): never => {
    throw new Error(`channels of ${group.name}: ${why}`);
  };
  if (group.skip) fail(`not prunable: ${group.skip}`);
  const stays = new Uint8Array(group.channels);
  for (const [i, channel] of kept.entries()) {
    if (!(channel in stays)) fail(`no channel ${channel} of ${group.channels}`);
    if (i > 0 && channel <= kept[i - 1]) fail('kept channels must ascend');
    stays[channel] = 1;
  }
  if (kept.length === 0) fail('at least one must stay');
  const count = (channels: readonly number[]) => channels.reduce((n, c) => n + stays[c], 0);
  if (group.blocks && new Set(group.blocks.map(count)).size > 1)
    fail('the groups of a convolution must keep equal counts');
  for (const part of [...group.parts, ...(group.blocks ?? [])])
    if (count(part) === 0) fail(`one of ${part.join(', ')} must stay`);
  return stays;
}

function cutOf(cuts: Map<NodeProto, Cut[]>, { node, input, view }: ChannelParameter): Cut {
  const own = cuts.get(node) ?? [];
  cuts.set(node, own);
  const known = own.find((cut) => cut.input === input);
  if (known) return known;
  const cut = { node, input, view, masks: new Map<number, Mask>() };
  own.push(cut);
  return cut;
}

/** Positions of other groups' channels stay as they are. */
function narrow(masks: Map<number, Mask>, axis: number, channels: ChannelMap, stays: Mask): void {
  const mask = masks.get(axis) ?? new Uint8Array(channels.length).fill(1);
  exclude(mask, channels, stays);
  masks.set(axis, mask);
}

function exclude(mask: Mask, channels: ChannelMap, stays: Mask): void {
  for (const [i, channel] of channels.entries()) if (channel >= 0 && !stays[channel]) mask[i] = 0;
}

const positions = (mask: Mask): number[] => Array.from(mask.keys()).filter((i) => mask[i]);

const countOf = (mask: Mask): number => mask.reduce((n, m) => n + m, 0);

async function cutConstant(
  model: Model,
  { node, input, view, masks, inAxis }: Cut,
  weights: ReadonlyMap<NodeProto, Float32Array>,
): Promise<NewConstant> {
  const { dtype } = tensorInfo(view.tensor);
  const kept = view.axes.map((_, i) => {
    const mask = masks.get(i);
    return mask && positions(mask);
  });
  // Along the second axis of a grouped convolution's weight stands one group of several.
  const groups = (masks.get(1)?.length ?? view.axes[1]?.size ?? 1) / (view.axes[1]?.size ?? 1);
  const shape = shapeAfter(view.axes, kept, groups);
  const values = inAxis === undefined ? undefined : weights.get(node);
  const signature = kept.map((p) => p?.join() ?? '').join(';');
  const layout = JSON.stringify(view.axes);
  const key = `${view.source.name}|${layout}|${values ? `${node.output[0]}|${input}` : signature}`;
  const width = dtypeBits(dtype) / 8;
  let bytes: Uint8Array;
  if (values) {
    const rest: Kept = kept.map((p, i) => (i === inAxis ? undefined : p));
    const inKept: Kept = kept.map((p, i) => (i === inAxis ? p : undefined));
    const axes = contiguous(shapeAfter(view.axes, inKept, groups));
    const expected = axes.reduce((n, { size }) => n * size, 1);
    if (values.length !== expected)
      throw new Error(`new weight of ${node.name}: ${values.length} of ${expected} values`);
    bytes = cutBytes(encodeFloat32(values, dtype), width, axes, groups, rest);
  } else {
    bytes = cutBytes(await readTensorBytes(model, view.tensor), width, view.axes, groups, kept);
  }
  return { node, input, view, tensor: makeTensor({ name: '', dtype, shape, bytes }), key };
}

const cutBytes = (
  raw: Uint8Array,
  width: number,
  axes: Axis[],
  groups: number,
  kept: Kept,
): Uint8Array =>
  groups > 1 ? gatherGrouped(raw, width, axes, groups, kept) : gather(raw, width, axes, kept);

const shapeAfter = (axes: readonly Axis[], kept: Kept, groups: number): number[] =>
  axes.map(({ size }, i) => {
    const count = kept[i]?.length;
    return count === undefined ? size : i === 1 ? count / groups : count;
  });

function contiguous(shape: readonly number[]): Axis[] {
  return shape.map((size, i) => ({
    size,
    stride: shape.slice(i + 1).reduce((n, d) => n * d, 1),
  }));
}

/** Writes changed numbers into attributes. @returns those in constants */
async function recount(
  model: Model,
  rewrite: Rewrite,
  recounts: readonly Recount[],
): Promise<NewConstant[]> {
  const graph = new Graph(model.proto);
  const constants = new Constants(graph);
  const lists = new Map<string, IntegerList>();
  for (const { place, index = 0, implied, mask } of recounts) {
    const { node } = place;
    const count = countOf(mask);
    if ('attribute' in place) {
      const copy = rewrite.edit(node);
      const { attribute: name } = place;
      const list = attribute(copy, name)?.ints ?? implied;
      const changed = list
        ? { name, type: AttributeType.ints, ints: list.with(index, count) }
        : int(name, count);
      const others = copy.attribute.filter((a) => a.name !== name);
      copy.attribute = [...others, changed];
      continue;
    }
    const { input } = place;
    const key = `${node.output[0]}|${input}`;
    let list = lists.get(key);
    if (!list) {
      const value = graph.input(graph.root, node, input);
      const traced = value && constants.trace(value);
      const view = isView(traced) ? traced : undefined;
      const stored = view?.tensor ?? int64Tensor(implied ?? []);
      const { dtype } = tensorInfo(stored);
      const bytes = new Uint8Array(await readTensorBytes(model, stored));
      list = { node, input, view, dtype, bytes };
      lists.set(key, list);
      // A Split says either how many parts there are or how long they are.
      const copy = rewrite.edit(node);
      if (implied) copy.attribute = copy.attribute.filter((a) => a.name !== 'num_outputs');
    }
    if (list.dtype === 'int32') new Int32Array(list.bytes.buffer)[index] = count;
    else new BigInt64Array(list.bytes.buffer)[index] = BigInt(count);
  }
  return [...lists.entries()].map(([key, { node, input, view, dtype, bytes }]) => {
    const shape = view?.axes.map(({ size }) => size) ?? [bytes.length / (dtypeBits(dtype) / 8)];
    const tensor = makeTensor({ name: '', dtype, shape, bytes });
    const same = `${view?.source.name ?? key}|${Buffer.from(bytes).toString('hex')}`;
    return { node, input, tensor, key: same, ...(view && { view }) };
  });
}

/** A list of integers that a node reads, with changes. */
interface IntegerList {
  node: NodeProto;
  input: number;
  /** What it read before, if anything. */
  view: ConstantView | undefined;
  dtype: DType;
  bytes: Uint8Array<ArrayBuffer>;
}

/** A value's description with the new length of its channel axis. */
function describe(
  value: ValueInfoProto,
  length: { axis: number; mask: Mask } | undefined,
): ValueInfoProto {
  const type = value.type?.tensorType;
  const dim = type?.shape?.dim;
  if (!length || !dim || dim[length.axis]?.dimValue === undefined) return value;
  const changed = dim.map((d, i) =>
    i === length.axis ? { ...d, dimValue: countOf(length.mask) } : d,
  );
  return { ...value, type: { ...value.type, tensorType: { ...type, shape: { dim: changed } } } };
}
