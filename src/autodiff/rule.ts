import { opName } from '../graph/nodes.js';
import type { NodeProto } from '../onnx/index.js';
import { Refusal } from './refusal.js';
import type { Tape } from './tape.js';

/** What a rule is asked. */
export interface Pullback {
  /** A node of the forward graph, of opset 17 or newer. */
  node: NodeProto;
  /** Names of dL/dy, one for each output of the node; undefined where no gradient comes in. */
  dy: readonly (string | undefined)[];
  /** For each input whether its gradient is wanted. What is not asked for is not to be emitted. */
  need: readonly boolean[];
}

/**
 * The gradient of one op: emits dL/dx for the inputs that need it, from dL/dy.
 * @returns one name for each input, of the input's own shape; undefined where none was asked for, or
 *   where the op has no derivative by that input (indices, shapes).
 */
export type Rule = (t: Tape, pullback: Pullback) => (string | undefined)[];

/** A rule for an op with one output: `g` is the gradient that comes in. */
export const single =
  (rule: (t: Tape, g: string, p: Pullback) => (string | undefined)[]): Rule =>
  (t, p) => {
    const [g] = p.dy;
    return g === undefined ? [] : rule(t, g, p);
  };

/** A rule for y = f(x), element by element: `pull` emits g f'(x). */
export const elementwise = (
  pull: (t: Tape, g: string, x: string, y: string, node: NodeProto) => string,
): Rule => single((t, g, { node }) => [pull(t, g, node.input[0], node.output[0], node)]);

/**
 * Gives up on a node, whose inputs then have no gradient: no zeros are passed on instead.
 * @param form what the op has that its rule does not know, as in `mode cubic`
 * @throws {Refusal} which becomes a NoGradientError where the gradient is wanted
 */
export function refuse(node: NodeProto, form: string): never {
  throw new Refusal(`${opName(node)} with ${form} has no gradient here`);
}
