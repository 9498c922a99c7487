import type { NodeProto } from '../onnx/index.js';
import type { Graph, Value } from './graph.js';

/** All nodes that a value of the main graph is computed with. */
export function ancestors(graph: Graph, value: Value | undefined): Set<NodeProto> {
  const found = new Set<NodeProto>();
  const waiting = [value];
  while (waiting.length > 0) {
    const next = waiting.pop();
    const node = next?.producer;
    if (!next || !node || found.has(node)) continue;
    found.add(node);
    for (const [i] of node.input.entries()) waiting.push(graph.input(next.scope, node, i));
    // What a body reads from outside.
    for (const scope of graph.scopes)
      if (scope.owner === node)
        for (const inner of scope.graph.node)
          for (const [i] of inner.input.entries()) {
            const read = graph.input(scope, inner, i);
            if (read) waiting.push(read);
          }
  }
  return found;
}

/** All nodes that a node of the main graph has an influence on. */
export function descendants(graph: Graph, node: NodeProto): Set<NodeProto> {
  const { root } = graph;
  const found = new Set<NodeProto>();
  const waiting = [...node.output];
  while (waiting.length > 0) {
    const value = root.values.get(waiting.pop() ?? '');
    for (const use of value?.consumers ?? []) {
      // A read in a body counts as one of the node that owns the body.
      let { node: reader, scope } = use;
      while (scope !== root && scope.owner && scope.parent) {
        found.add(reader);
        reader = scope.owner;
        scope = scope.parent;
      }
      if (found.has(reader)) continue;
      found.add(reader);
      waiting.push(...reader.output);
    }
  }
  return found;
}
