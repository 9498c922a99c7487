import type { NodeProto } from '../onnx/index.js';
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
