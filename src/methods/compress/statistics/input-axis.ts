import type { Graph, Value } from '../../../graph/graph.js';
import { intsAttribute } from '../../../graph/nodes.js';

/** Readers that are looked through before the second axis is taken. */
const DEPTH = 16;

/**
 * The axis of the channels of a graph input: the last for what a MatMul reads first, the second for
 * everything else, followed back through Transposes.
 */
export function inputAxis(graph: Graph, value: Value, rank: number, depth = DEPTH): number {
  const use = value.consumers.find(({ index, scope }) => index === 0 && scope === graph.root);
  const second = Math.min(1, rank - 1);
  if (!use || depth === 0) return second;
  const { node } = use;
  const output = graph.root.values.get(node.output[0] ?? '');
  switch (node.opType) {
    case 'MatMul':
      return rank - 1;
    case 'Transpose': {
      const perm = intsAttribute(node, 'perm');
      return perm?.length === rank && output
        ? perm[inputAxis(graph, output, rank, depth - 1)]
        : second;
    }
    case 'Identity':
    case 'Cast':
    case 'Pad':
    case 'Add':
    case 'Sub':
    case 'Mul':
    case 'Div':
      return output ? inputAxis(graph, output, rank, depth - 1) : second;
    default:
      return second;
  }
}
