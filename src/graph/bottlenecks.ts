import type { GraphProto, NodeProto } from '../onnx/index.js';
import { opName } from './nodes.js';
import { dependencies, topologicalOrder } from './topology.js';

/** Ops that tell nothing of the values that they read. */
const aboutShapes = new Set(['Shape', 'Size']);

const valuesRead = (node: NodeProto): string[] =>
  aboutShapes.has(opName(node)) ? [] : dependencies(node);

/**
 * The values of the main graph that everything passes which flows from the inputs to `output`: without
 * one of them the output would be the same for all inputs. Constants that come in from the side, and
 * shapes of values, do not count as ways. The inputs themselves and the output are not among them.
 * @returns them in the order in which they are computed
 * @throws {ResectError} exit 5 on a cycle
 */
export function bottlenecks(graph: GraphProto, output: string): string[] {
  const order = topologicalOrder(graph);
  const stored = new Set(graph.initializer.map(({ name }) => name));
  const flowing = new Set(
    graph.input.flatMap(({ name }) => (name && !stored.has(name) ? name : [])),
  );
  const reads = (node: NodeProto) => valuesRead(node).filter((name) => flowing.has(name));
  for (const node of order) {
    if (reads(node).length > 0) for (const name of node.output) if (name) flowing.add(name);
  }
  const needed = nodesTo(graph, output);
  const way = order.filter((node) => needed.has(node));
  const lastRead = new Map<string, number>();
  for (const [i, node] of way.entries()) for (const name of reads(node)) lastRead.set(name, i);

  const found: string[] = [];
  // Values that are still to be read. A single one left is what all that follows depends on.
  const live = new Set(graph.input.flatMap(({ name = '' }) => (lastRead.has(name) ? [name] : [])));
  for (const [i, node] of way.entries()) {
    for (const name of reads(node)) if (lastRead.get(name) === i) live.delete(name);
    for (const name of node.output) if (lastRead.has(name)) live.add(name);
    const [only] = live;
    if (live.size === 1 && node.output.includes(only)) found.push(only);
  }
  return found;
}

/**
 * The nodes of the main graph that a value is computed with, but for those of which only shapes are read.
 * @param from a value to stop at: nodes that are needed for it alone are left out
 * @throws {ResectError} exit 5 on a cycle
 */
export function nodesTo(graph: GraphProto, value: string, from?: string): Set<NodeProto> {
  const needed = new Set([value]);
  const found = new Set<NodeProto>();
  for (const node of topologicalOrder(graph).reverse()) {
    if (!node.output.some((name) => name !== from && needed.has(name))) continue;
    found.add(node);
    for (const name of valuesRead(node)) needed.add(name);
  }
  return found;
}
