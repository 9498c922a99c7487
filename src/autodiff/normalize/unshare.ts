import { mainGraph, Names } from '../../graph/bodies.js';
import { Constants, type ConstantUse } from '../../graph/constants.js';
import { Graph } from '../../graph/graph.js';
import {
  isFloat,
  type Model,
  type ModelProto,
  type NodeProto,
  readTensorBytes,
  type TensorProto,
  tensorInfo,
} from '../../onnx/index.js';
import type { Origins } from './origins.js';

/**
 * Whether consumers share a parameter on purpose, so that they must stay together: the `uses` are
 * all reads of `tensor` by nodes of the main graph.
 */
export type IsTied = (tensor: TensorProto, uses: readonly ConstantUse[]) => boolean;

/** Parameters that one tensor stood for: by the tensor, the names of the initializers that stand for it now. */
export type Unshared = Map<TensorProto, string[]>;

/**
 * Gives each consumer of a shared parameter an initializer of its own: same values, by reference,
 * under a new name. The first consumer keeps the old name, and so do reads in bodies and the graph's
 * outputs. Reads through Identity, Transpose, Reshape and the like get a copy of that chain.
 *
 * Exporters store equal tensors once (torch: the scales of all normalisations that are still 1). The
 * gradient of such a tensor is the sum over its consumers, and an update would move all of them.
 * Consumers that read a tied tensor together stay together: they are one layer, applied several
 * times.
 *
 * After that, copies of one tensor can change in different ways, which the one stored tensor cannot
 * hold. The result says which they are: sum their gradients before the tensor is edited, or apply
 * `unshare` to the model that is to be written.
 * @param options.keepLayers false takes every read apart, whatever the nodes have in common besides
 * @throws {ResectError} exit 5 on a cycle, and when a node reads what nothing defines
 */
export function unshare(
  model: ModelProto,
  isTied: IsTied,
  origins: Origins,
  { keepLayers = true }: { keepLayers?: boolean } = {},
): { model: ModelProto; unshared: Unshared } {
  const main = mainGraph(model);
  const graph = new Graph(model);
  const constants = new Constants(graph);
  const inMain = (tensor: TensorProto) =>
    constants.uses(tensor).filter(({ scope }) => scope === graph.root);
  const split = main.initializer.filter((tensor) => {
    if (!isFloat(tensorInfo(tensor).dtype)) return false;
    const uses = inMain(tensor);
    const readers = keepLayers ? new Set(uses.map(({ node }) => node)).size : uses.length;
    return readers > 1 && !isTied(tensor, uses);
  });
  const unshared: Unshared = new Map();
  if (split.length === 0) return { model, unshared };

  const separate = new Set(split);
  /** Other parameters that a node reads, which tell a layer that is applied twice. */
  const companions = new Map<NodeProto, Set<TensorProto>>();
  for (const tensor of main.initializer) {
    if (separate.has(tensor) || !isFloat(tensorInfo(tensor).dtype)) continue;
    if (tensorInfo(tensor).elements <= 1) continue;
    for (const { node } of inMain(tensor)) {
      const known = companions.get(node) ?? new Set();
      companions.set(node, known.add(tensor));
    }
  }

  const names = new Names(main);
  const initializers: TensorProto[] = [];
  const chains = new Map<NodeProto, NodeProto[]>();
  const inputs = new Map<NodeProto, string[]>();
  for (const tensor of split) {
    const copies = [tensor.name ?? ''];
    const uses = inMain(tensor);
    const layers = keepLayers ? groupByLayer(uses, companions) : uses.map((use) => [use]);
    for (const layer of layers.slice(1)) {
      const name = names.fresh(`${tensor.name}/${layer[0].node.output[0]}`);
      copies.push(name);
      initializers.push(origins.record({ ...tensor, name }, tensor));
      for (const { node, index } of layer) {
        const chain: NodeProto[] = [];
        const read = copyChain(graph, node.input[index], name, names, chain);
        const own = inputs.get(node) ?? [...node.input];
        own[index] = read;
        inputs.set(node, own);
        chains.set(node, [...(chains.get(node) ?? []), ...chain]);
      }
    }
    // Calls of one function have their constants in common.
    const original = origins.of(tensor);
    const earlier = unshared.get(original) ?? [];
    if (copies.length > 1) unshared.set(original, [...earlier, ...copies]);
  }
  const node = main.node.flatMap((n) => {
    const input = inputs.get(n);
    return input ? [...(chains.get(n) ?? []), { ...n, input }] : [n];
  });
  const initializer = [...main.initializer, ...initializers];
  return { model: { ...model, graph: { ...main, node, initializer } }, unshared };
}

/** Reads by layer: those whose nodes read another parameter in common belong to one. */
function groupByLayer(
  uses: readonly ConstantUse[],
  companions: ReadonlyMap<NodeProto, ReadonlySet<TensorProto>>,
): ConstantUse[][] {
  const layers: { uses: ConstantUse[]; nodes: Set<NodeProto>; tensors: Set<TensorProto> }[] = [];
  for (const use of uses) {
    const tensors = [...(companions.get(use.node) ?? [])];
    const known = layers.find(
      (l) => l.nodes.has(use.node) || tensors.some((t) => l.tensors.has(t)),
    );
    const layer = known ?? { uses: [], nodes: new Set(), tensors: new Set() };
    if (!known) layers.push(layer);
    layer.uses.push(use);
    layer.nodes.add(use.node);
    for (const t of tensors) layer.tensors.add(t);
  }
  return layers.map((l) => l.uses);
}

/** Appends a copy of the nodes between the stored tensor and `read`, over `initializer`; returns its output. */
function copyChain(
  graph: Graph,
  read: string,
  initializer: string,
  names: Names,
  chain: NodeProto[],
): string {
  const nodes: NodeProto[] = [];
  const producerOf = (name: string) => graph.lookup(graph.root, name)?.producer;
  for (let node = producerOf(read); node; node = producerOf(node.input[0])) nodes.push(node);
  let from = initializer;
  for (const node of nodes.reverse()) {
    if (node.opType === 'Identity') continue;
    const output = names.fresh(`${initializer}/${node.opType}`);
    const input = [from, ...node.input.slice(1)];
    chain.push({ ...node, name: `${output}:${node.opType}`, input, output: [output] });
    from = output;
  }
  return from;
}

/**
 * The criterion for trained models: the tensors that are shared only because their values happen to
 * be equal. Those are vectors (one axis longer than 1) whose elements are all the same: scales that
 * stayed 1, biases that stayed 0, layer scales. Two trained vectors, let alone matrices, do not agree
 * in all bits by chance, so what else is shared is tied: embedding and head, a layer applied twice.
 * Scalars count as constants of a formula, and a table that a Gather reads as an embedding.
 * @param source where the values of the model's tensors are
 * @throws {ResectError} as `readTensorBytes`
 */
export async function findMergedVectors(
  source: Model,
  tensors: readonly TensorProto[],
  origins: Origins,
): Promise<Set<TensorProto>> {
  const merged = new Set<TensorProto>();
  for (const tensor of tensors) {
    const { dtype, shape, elements } = tensorInfo(tensor);
    const isVector = elements > 1 && shape.filter((d) => d !== 1).length === 1;
    if (!isVector || !isFloat(dtype)) continue;
    const bytes = await readTensorBytes(source, origins.of(tensor));
    if (isRepeated(bytes, bytes.length / elements)) merged.add(tensor);
  }
  return merged;
}

/** Whether the bytes repeat their first `width` bytes to the end. */
function isRepeated(bytes: Uint8Array, width: number): boolean {
  for (let i = width; i < bytes.length; i++) if (bytes[i] !== bytes[i - width]) return false;
  return true;
}

export const isEmbedding = (uses: readonly ConstantUse[]): boolean =>
  uses.some(({ node, index }) => node.opType === 'Gather' && index === 0);
