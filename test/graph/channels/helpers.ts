import { inferTypes } from '../../../src/autodiff/types.js';
import { type ChannelGroup, findChannelGroups } from '../../../src/graph/channels/groups.js';
import { keepChannels } from '../../../src/graph/channels/slice.js';
import { Graph } from '../../../src/graph/graph.js';
import {
  encodeModel,
  type Model,
  type ModelProto,
  type NodeProto,
  parseModel,
  readTensorFloat32,
} from '../../../src/onnx/index.js';
import { floats, value } from '../../support/protos.js';
import { distance, floatTensor, runOnce } from '../../support/run.js';
import { noise } from '../helpers.js';

/** A model as it would be read from a file. */
export const reread = (proto: ModelProto): Model => parseModel(encodeModel(proto));

/** The model with its first input of fixed size. */
export function withInput(proto: ModelProto, dims: number[]): ModelProto {
  const { graph } = proto;
  if (!graph) throw new Error('no graph');
  const [first, ...rest] = graph.input;
  return { ...proto, graph: { ...graph, input: [value(first.name ?? '', dims), ...rest] } };
}

export async function groupsOf(proto: ModelProto, dims: number[]): Promise<ChannelGroup[]> {
  const shapes = await inferTypes(withInput(proto, dims));
  return findChannelGroups(new Graph(proto), shapes);
}

/** The group that the node of this name produces. */
export function groupOf(groups: ChannelGroup[], producer: string): ChannelGroup {
  const group = groups.find((g) => g.producers.some(({ node }) => nameOf(node) === producer));
  if (!group) throw new Error(`no group of ${producer}`);
  return group;
}

export const nameOf = (node: NodeProto): string => node.name || node.output[0];

/** What a group consists of, by output of each node. */
export const members = (group: ChannelGroup) => ({
  channels: group.channels,
  producers: group.producers.map(({ node }) => node.output[0]),
  consumers: group.consumers.map(({ node }) => node.output[0]),
});

export const reasons = (groups: ChannelGroup[]) =>
  Object.fromEntries(groups.map((g) => [g.producers[0].node.output[0], g.skip]));

/**
 * Removes channels, which `keep` chooses for each group that may be pruned, and compares with the original in which
 * nothing reads them. ONNX Runtime must give the same, with and without its optimisations.
 * @param dims of the first input
 * @returns the pruned model, as read from a file
 */
export async function expectExact(
  proto: ModelProto,
  dims: number[],
  keep: (group: ChannelGroup, index: number) => number[] = everyOther,
): Promise<ModelProto> {
  const model = reread(proto);
  const before = encodeModel(model.proto);
  const groups = (await groupsOf(model.proto, dims)).filter((g) => !g.skip);
  const kept = new Map(groups.map((group, i) => [group, keep(group, i)]));
  const pruned = reread(await keepChannels(model, kept)).proto;
  expect(Buffer.compare(encodeModel(model.proto), before)).toBe(0);

  const zeroed = await withoutReads(model, kept);
  const [input] = proto.graph?.input ?? [];
  const x = floatTensor(dims, noise(dims.reduce((n, d) => n * d, 1)));
  for (const optimize of [false, true]) {
    const expected = await runOnce(zeroed, { [input.name ?? '']: x });
    const got = await runOnce(pruned, { [input.name ?? '']: x }, { optimize });
    for (const [name, output] of Object.entries(expected))
      expect(distance(output, got[name])).toBeLessThan(1e-5);
  }
  return pruned;
}

/** About half of the channels, as many of each block. */
export function everyOther(group: ChannelGroup): number[] {
  const { blocks, channels, parts } = group;
  if (blocks)
    return blocks
      .flatMap((block) => block.slice(0, Math.ceil(block.length / 2)))
      .sort((a, b) => a - b);
  const kept = new Set(Array.from({ length: channels }, (_, i) => i).filter((i) => i % 2 === 1));
  for (const part of parts) kept.add(part[0]);
  return [...kept].sort((a, b) => a - b);
}

/** The model with zeros in the weights of consumers, at the inputs that are not kept. */
async function withoutReads(
  model: Model,
  kept: ReadonlyMap<ChannelGroup, readonly number[]>,
): Promise<ModelProto> {
  const { proto } = model;
  if (!proto.graph) throw new Error('no graph');
  const graph = {
    ...proto.graph,
    node: [...proto.graph.node],
    initializer: [...proto.graph.initializer],
  };
  const copies = new Map<NodeProto, { copy: NodeProto; values: Float32Array }>();
  for (const [group, channels] of kept) {
    for (const { node, input, axis, view, channels: map } of group.consumers) {
      const known = copies.get(node);
      const values = known?.values ?? (await contiguous(model, view));
      if (!known) {
        const name = `zeroed/${node.output[0]}`;
        const copy = { ...node, input: node.input.with(input, name) };
        copies.set(node, { copy, values });
        graph.node[graph.node.indexOf(node)] = copy;
        graph.initializer.push(
          floats(
            name,
            view.axes.map((a) => a.size),
            values,
          ),
        );
      }
      const shape = view.axes.map(({ size }) => size);
      const groups = map.length / shape[axis];
      const inner = shape.slice(axis + 1).reduce((n, d) => n * d, 1);
      for (let i = 0; i < values.length; i++) {
        const along = Math.floor(i / inner) % shape[axis];
        const first = Math.floor(i / (values.length / shape[0]));
        const block = axis === 1 ? Math.floor(first / (shape[0] / groups)) : 0;
        const channel = map[block * shape[axis] + along];
        if (channel >= 0 && !channels.includes(channel)) values[i] = 0;
      }
    }
  }
  return { ...proto, graph: { ...graph, valueInfo: [] } };
}

/** The values of a view, row-major. */
async function contiguous(
  model: Model,
  { tensor, axes }: ChannelGroup['producers'][number]['view'],
): Promise<Float32Array> {
  const stored = await readTensorFloat32(model, tensor);
  const values = new Float32Array(stored.length);
  for (let i = 0; i < values.length; i++) {
    let rest = i;
    let offset = 0;
    for (let axis = axes.length - 1; axis >= 0; axis--) {
      offset += (rest % axes[axis].size) * axes[axis].stride;
      rest = Math.floor(rest / axes[axis].size);
    }
    values[i] = stored[offset];
  }
  return values;
}
