import { attribute, intAttribute, intsAttribute } from '../graph/nodes.js';
import type { NodeProto } from '../onnx/index.js';
import { wrapAxis } from './emit.js';
import { refuse } from './rule.js';
import type { Tape } from './tape.js';

/**
 * The numbers of an input that a rule has to know before the graph runs; undefined where it is left out.
 * @param what the input is, for the message
 * @throws {Refusal} where it is computed
 */
export function constantInput(
  t: Tape,
  node: NodeProto,
  index: number,
  what: string,
): number[] | undefined {
  const name = node.input[index];
  if (!name) return undefined;
  return t.constant(name) ?? refuse(node, `${what} that the model computes`);
}

/**
 * The axes that a node reduces or moves, non-negative: its `axes` attribute or, in newer opsets, input
 * `index`. Undefined where neither is there.
 */
export const axesOf = (t: Tape, node: NodeProto, rank: number, index = 1): number[] | undefined =>
  (attribute(node, 'axes')
    ? intsAttribute(node, 'axes')
    : constantInput(t, node, index, 'axes')
  )?.map((axis) => wrapAxis(axis, rank));

/** The `axis` attribute, non-negative. */
export const axisOf = (node: NodeProto, rank: number, fallback: number): number =>
  wrapAxis(intAttribute(node, 'axis', fallback), rank);
