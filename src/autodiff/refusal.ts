/**
 * Why a rule gives up on a node: a form of the op that it does not know, a shape that depends on the
 * data. Becomes a NoGradientError where the gradient is wanted.
 */
export class Refusal extends Error {}
