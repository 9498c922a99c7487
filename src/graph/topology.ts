import { modelError } from '../errors.js';
import type { GraphProto, NodeProto } from '../onnx/index.js';
import { opName, subgraphs } from './nodes.js';

/** Names a node needs from the graph it stands in: its inputs, and what its bodies capture. */
export function dependencies(node: NodeProto): string[] {
  const names = new Set(node.input.filter(Boolean));
  for (const { graph } of subgraphs(node)) for (const name of captures(graph)) names.add(name);
  return [...names];
}

/** Names that a body reads and does not define itself. */
function captures(body: GraphProto): Set<string> {
  const defined = new Set<string>();
  for (const input of body.input) defined.add(input.name ?? '');
  for (const tensor of body.initializer) defined.add(tensor.name ?? '');
  for (const sparse of body.sparseInitializer ?? []) defined.add(sparse.values?.name ?? '');
  for (const node of body.node) for (const name of node.output) defined.add(name);
  const free = new Set<string>();
  const read = (name: string | null | undefined) => {
    if (name && !defined.has(name)) free.add(name);
  };
  for (const node of body.node) for (const name of dependencies(node)) read(name);
  for (const output of body.output) read(output.name);
  return free;
}

/**
 * The nodes of one body in an order where every node follows what it reads. Files need not be
 * sorted. Nodes keep their relative order where they may.
 * @throws {ResectError} exit 5 on a cycle.
 */
export function topologicalOrder(graph: GraphProto): NodeProto[] {
  const nodes = graph.node;
  const producer = new Map<string, NodeProto>();
  for (const node of nodes)
    for (const name of node.output) if (name && !producer.has(name)) producer.set(name, node);

  const order: NodeProto[] = [];
  const state = new Map<NodeProto, 'open' | 'done'>();
  // An explicit stack: chains of 100,000 nodes exist, and would overflow the call stack.
  for (const start of nodes) {
    const stack: { node: NodeProto; pending: NodeProto[] }[] = [];
    const open = (node: NodeProto) => {
      state.set(node, 'open');
      const pending = dependencies(node)
        .map((name) => producer.get(name))
        .filter((p): p is NodeProto => p !== undefined)
        .reverse();
      stack.push({ node, pending });
    };
    if (!state.has(start)) open(start);
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const next = top.pending.pop();
      if (!next) {
        state.set(top.node, 'done');
        order.push(top.node);
        stack.pop();
      } else if (state.get(next) === 'open') {
        throw modelError('The graph has a cycle.', { where: `node ${next.name || opName(next)}` });
      } else if (!state.has(next)) {
        open(next);
      }
    }
  }
  return order;
}

/** Removes nodes and initializers of a body (in place) that none of its outputs depends on. */
export function removeDeadNodes(graph: GraphProto): void {
  const live = new Set(graph.output.map((o) => o.name ?? ''));
  const kept = new Set<NodeProto>();
  for (const node of topologicalOrder(graph).reverse()) {
    if (!node.output.some((name) => live.has(name))) continue;
    kept.add(node);
    for (const name of dependencies(node)) live.add(name);
  }
  graph.node = graph.node.filter((node) => kept.has(node));
  const dead = new Set(
    graph.initializer.map((t) => t.name ?? '').filter((name) => !live.has(name)),
  );
  graph.initializer = graph.initializer.filter((t) => !dead.has(t.name ?? ''));
  // Without its initializer, an input would have to be fed.
  graph.input = graph.input.filter((v) => !dead.has(v.name ?? ''));
  if (graph.sparseInitializer) {
    graph.sparseInitializer = graph.sparseInitializer.filter((s) => live.has(s.values?.name ?? ''));
  }
}
