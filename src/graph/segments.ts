import type { GraphProto, ModelProto, NodeProto, ValueInfoProto } from '../onnx/index.js';
import type { Graph } from './graph.js';
import type { LinearLayer } from './linear-layers.js';
import { dependencies, topologicalOrder } from './topology.js';

/** A stretch of the main graph between two cut points. */
export interface Segment {
  layers: LinearLayer[];
  /** The one activation that comes in from the segment before; absent for the first. */
  input?: string;
  /** The one activation that goes on to the next segment; absent for the last. */
  output?: string;
}

/**
 * Splits the layers into segments at the graph's cut points: places where a single activation that
 * depends on a layer separates what is before from what is after. Masks, positions and other values
 * that come from the model's inputs without passing a layer do not count; every segment computes
 * them anew. A graph without cut points is one segment. Layers inside a body belong to the segment
 * of the node that owns it.
 */
export function cutIntoSegments(graph: Graph, layers: LinearLayer[]): Segment[] {
  const order = topologicalOrder(graph.root.graph);
  const at = new Map<NodeProto, LinearLayer[]>();
  for (const layer of layers) {
    const node = rootNode(layer);
    at.set(node, [...(at.get(node) ?? []), layer]);
  }
  const lastUse = new Map<string, number>();
  for (const [i, node] of order.entries())
    for (const name of dependencies(node)) lastUse.set(name, i);

  const segments: Segment[] = [{ layers: [] }];
  const downstream = new Set<string>();
  const live = new Set<string>();
  let cut: string | undefined;
  for (const [i, node] of order.entries()) {
    const own = at.get(node) ?? [];
    if (own.length > 0) {
      const current = segments[segments.length - 1];
      if (cut !== undefined && current.layers.length > 0) {
        current.output = cut;
        segments.push({ layers: [...own], input: cut });
      } else {
        current.layers.push(...own);
      }
      cut = undefined;
    }
    const reads = dependencies(node);
    for (const name of reads) if (lastUse.get(name) === i) live.delete(name);
    if (own.length > 0 || reads.some((name) => downstream.has(name))) {
      for (const name of node.output) {
        downstream.add(name);
        if ((lastUse.get(name) ?? -1) > i) live.add(name);
      }
    }
    if (live.size === 1) [cut] = live;
  }
  return segments;
}

/** The node of the main graph that a node is, or stands in. */
export function rootNode(place: Pick<LinearLayer, 'scope' | 'node'>): NodeProto {
  let { scope, node } = place;
  while (scope.parent && scope.owner) {
    node = scope.owner;
    scope = scope.parent;
  }
  return node;
}

/**
 * The part of the main graph that computes `outputs` from `inputs` (values of the graph, which
 * become inputs of the part, with their element type and no fixed shape) and from the model's own
 * inputs. Tensors and nodes are shared with the original.
 */
export function extractPart(
  model: ModelProto,
  inputs: ValueInfoProto[],
  outputs: string[],
): ModelProto {
  const given = new Set(inputs.map((v) => v.name));
  const source = model.graph;
  if (!source) throw new Error('a model without graph has no parts');
  const live = new Set(outputs);
  const nodes: NodeProto[] = [];
  for (const node of topologicalOrder(source).reverse()) {
    if (!node.output.some((name) => live.has(name) && !given.has(name))) continue;
    nodes.push(node);
    for (const name of dependencies(node)) live.add(name);
  }
  const initializer = source.initializer.filter((t) => live.has(t.name ?? ''));
  const stored = new Set(initializer.map((t) => t.name));
  const graph: GraphProto = {
    name: source.name || 'part',
    node: nodes.reverse(),
    valueInfo: [],
    initializer,
    sparseInitializer: (source.sparseInitializer ?? []).filter((s) =>
      live.has(s.values?.name ?? ''),
    ),
    input: [
      ...source.input.filter((v) => live.has(v.name ?? '') && !stored.has(v.name)),
      ...inputs.filter((v) => live.has(v.name ?? '')),
    ],
    output: outputs.map((name) => ({ name })),
  };
  // Before IR 4 every initializer had to be an input as well, which hinders constant folding.
  return {
    irVersion: Math.max(Number(model.irVersion ?? 4), 4),
    opsetImport: model.opsetImport,
    graph,
  };
}
