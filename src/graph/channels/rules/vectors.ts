import type { NodeProto } from '../../../onnx/index.js';
import { intAttribute, opName } from '../../nodes.js';
import { type ChannelAnalysis, type Dim, wrapAxis } from '../analysis.js';

/**
 * Follows what a model computes with shapes, element by element, so far as elements are only moved.
 * @returns whether the node is such an op; if not, its rule has to see to it
 */
export function followVector(a: ChannelAnalysis, node: NodeProto): boolean {
  const op = opName(node);
  if (op === 'Shape') {
    shape(a, node);
    return true;
  }
  if (!node.input.some((name) => a.vectors.has(name))) return false;
  const result = moved(a, node, op);
  if (!result) return false;
  a.vectors.set(node.output[0], result);
  return true;
}

function shape(a: ChannelAnalysis, node: NodeProto): void {
  const x = a.tracked(node, 0);
  const known = a.dims(node.input[0]);
  const rank = x?.rank ?? known?.length;
  if (rank === undefined) return;
  const dims = Array.from({ length: rank }, (_, i): Dim => {
    return x && i === x.axis
      ? { kind: 'channels', ids: x.ids }
      : { kind: 'other', value: known?.[i] };
  });
  const from = intAttribute(node, 'start', 0);
  const to = intAttribute(node, 'end', rank);
  a.vectors.set(node.output[0], dims.slice(from, to));
}

function moved(a: ChannelAnalysis, node: NodeProto, op: string): Dim[] | undefined {
  const from = a.inputVector(node, 0);
  if (!from) return undefined;
  switch (op) {
    case 'Cast':
    case 'Identity':
    case 'Squeeze':
    case 'Unsqueeze':
      return from;
    case 'Concat': {
      const parts = node.input.map((_, i) => a.inputVector(node, i));
      return parts.every((part) => part !== undefined) ? parts.flat() : undefined;
    }
    case 'Gather': {
      const indices = a.ints(node, 1);
      const picked = indices?.map((i) => from[wrapAxis(i, from.length)]);
      return picked?.every((dim) => dim !== undefined) ? picked : undefined;
    }
    case 'Slice': {
      const [start, end] = [a.ints(node, 1, 'starts'), a.ints(node, 2, 'ends')];
      const step = node.input[4] ? a.ints(node, 4) : [1];
      return start && end && step?.[0] === 1 ? from.slice(start[0], end[0]) : undefined;
    }
    default:
      return undefined;
  }
}
