import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../onnx/index.js';
import { subgraphs } from './nodes.js';

/** The main graph of a model that was read: `parseModel` refuses a file without one. */
export function mainGraph(model: ModelProto): GraphProto {
  if (!model.graph) throw new Error('a model that was read has a graph');
  return model.graph;
}

/** The graph and every body below it, owners before what they own. */
export function* allGraphs(graph: GraphProto): Generator<GraphProto> {
  yield graph;
  for (const node of graph.node)
    for (const { graph: body } of subgraphs(node)) yield* allGraphs(body);
}

/** The node with its bodies replaced; the node itself when it has none. */
export function mapBodies(node: NodeProto, map: (body: GraphProto) => GraphProto): NodeProto {
  if (subgraphs(node).length === 0) return node;
  const attribute = node.attribute.map((a) => ({
    ...a,
    ...(a.g && { g: map(a.g) }),
    ...(a.graphs?.length && { graphs: a.graphs.map(map) }),
  }));
  return { ...node, attribute };
}

/** The graph with its initializers and the tensors among attributes replaced, in bodies too. */
export function mapTensors(
  graph: GraphProto,
  map: (tensor: TensorProto) => TensorProto,
): GraphProto {
  const mapNode = (original: NodeProto): NodeProto => {
    const node = mapBodies(original, (body) => mapTensors(body, map));
    if (!node.attribute.some((a) => a.t)) return node;
    return { ...node, attribute: node.attribute.map((a) => (a.t ? { ...a, t: map(a.t) } : a)) };
  };
  return { ...graph, initializer: graph.initializer.map(map), node: graph.node.map(mapNode) };
}

/** Makes names that nothing in a model has, at any depth: no body can shadow them. */
export class Names {
  readonly #taken = new Set<string>();

  constructor(graph: GraphProto) {
    for (const { input, initializer, sparseInitializer = [], node } of allGraphs(graph)) {
      for (const { name } of [...input, ...initializer]) this.#taken.add(name ?? '');
      for (const { values } of sparseInitializer) this.#taken.add(values?.name ?? '');
      for (const { output } of node) for (const name of output) this.#taken.add(name);
    }
  }

  /** `wanted`, with a number behind it where that is taken. */
  fresh(wanted: string): string {
    let name = wanted;
    for (let i = 1; this.#taken.has(name); i++) name = `${wanted}_${i}`;
    this.#taken.add(name);
    return name;
  }
}
