import type { GraphProto, NodeProto } from '../onnx/index.js';
import { opName } from './nodes.js';
import { dependencies, topologicalOrder } from './topology.js';

/** Ops that tell nothing of the values that they read. */
const aboutShapes = new Set(['Shape', 'Size']);

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
  const reads = (node: NodeProto) =>
    aboutShapes.has(opName(node)) ? [] : dependencies(node).filter((name) => flowing.has(name));
  for (const node of order) {
    if (reads(node).length > 0) for (const name of node.output) if (name) flowing.add(name);
  }
  const needed = new Set([output]);
  for (const node of [...order].reverse()) {
    if (node.output.some((name) => needed.has(name)))
      for (const name of reads(node)) needed.add(name);
  }
  const way = order.filter((node) => node.output.some((name) => needed.has(name)));
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
