import { div, minus, mul, neg, plus, reduceSum, scale, where } from '../../../autodiff/emit.js';
import type { LossGraph } from '../../../autodiff/loss-graph.js';
import { Tape } from '../../../autodiff/tape.js';
import { int } from '../../../graph/build.js';
import { dtypeCode } from '../../../onnx/index.js';
import { emitVae, squaredError, type VaeSizes, type VaeWeights, weightTensors } from './vae.js';

/*
 * The two losses of LAF (arXiv 2404.00506, in the form of the authors' code), of the representations
 * e [examples, width] that a model computes. Each is a sum of a term for kept examples and one for those
 * to forget, so that the gradients of either can be taken apart. Sums over examples, not means.
 */

/** What the terms of `unlearningTerm` are fed: noise ε [examples, latent]. */
export const noiseInput = 'resect/noise';

/** What alignment is fed: the representations that the original has, [examples, width]. */
export const teacherInput = 'resect/teacher';

/** What the term of the forget set is fed in alignment: how many kept examples there are, []. */
export const keptInput = 'resect/kept';

/** Shorter representations have no direction. */
export const shortest = 1e-6;

/**
 * Σ φ(M) for kept examples, -Σ φ(M) for those to forget, with φ(M) = exp(M / (M + 1)) of the error
 * M = ‖VAE(e) - e‖² of an autoencoder: of all examples, and of the forget set. Kept representations are to
 * stay what they were like, the others to become what none was like.
 * @param value that holds the representations
 */
export function unlearningTerm(
  side: 'kept' | 'forgotten',
  value: string,
  sizes: VaeSizes,
  vae: VaeWeights,
): LossGraph {
  const { t, e } = start('unlearning', value, 'float32');
  const prefix = 'resect/vae/';
  const error = squaredError(t, e, emitVae(t, e, noiseInput, prefix));
  // M / (M + 1) = 1 - 1 / (M + 1), whose gradient does not cancel for large M.
  const share = minus(t, 1, t.emit('Reciprocal', [plus(t, error, 1, e)]), e);
  const sum = reduceSum(t, t.emit('Exp', [share]), [0], false);
  return {
    nodes: t.nodes,
    initializers: [...weightTensors(sizes, vae, prefix), ...t.initializers],
    inputs: [noiseInput],
    loss: side === 'kept' ? sum : neg(t, sum),
    shown: [],
  };
}

/** A term of the alignment loss, and the name of its distances [examples]. */
export interface AlignmentTerm extends LossGraph {
  distances: string;
}

/**
 * Σ d for kept examples, - kept · log Σ exp(d / temperature) for those to forget, with
 * d = 1 - cos(e, e of the original): kept representations are to point where they pointed, the others
 * elsewhere. Computed in float64, as d is a small difference at first. Representations without a direction
 * are left out of either sum.
 * @param value that holds the representations
 */
export function alignmentTerm(
  side: 'kept' | 'forgotten',
  value: string,
  temperature: number,
): AlignmentTerm {
  const { t, e } = start('alignment', value, 'float64');
  const wide = (x: string) => t.emit('Cast', [x], [int('to', dtypeCode('float64'))]);
  const teacher = wide(teacherInput);
  const dot = (a: string, b: string) => reduceSum(t, mul(t, a, b), [1], false);
  const [own, other] = [dot(e, e), dot(teacher, teacher)];
  const norms = mul(t, plus(t, own, 1e-12, e), plus(t, other, 1e-12, e));
  const cosine = div(t, dot(e, teacher), t.emit('Sqrt', [norms]));
  const long = (square: string) => t.emit('Greater', [square, t.scalar(shortest ** 2, e)]);
  const directed = t.emit('And', [long(own), long(other)]);
  const zero = t.scalar(0, e);
  const distances = where(t, directed, minus(t, 1, cosine, e), zero);
  // d is at most 2: taken off before exp, it keeps that from overflowing.
  const exponents = scale(t, plus(t, distances, -2, e), 1 / temperature, e);
  const terms = where(t, directed, t.emit('Exp', [exponents]), zero);
  const total = t.emit('Max', [reduceSum(t, terms, [0], false), t.scalar(Number.MIN_VALUE, e)]);
  const logSumExp = plus(t, t.emit('Log', [total]), 2 / temperature, e);
  const loss =
    side === 'kept'
      ? reduceSum(t, distances, [0], false)
      : neg(t, mul(t, wide(keptInput), logSumExp));
  return {
    nodes: t.nodes,
    initializers: t.initializers,
    inputs: side === 'kept' ? [teacherInput] : [teacherInput, keptInput],
    loss,
    distances,
    shown: [],
  };
}

/** A tape whose names meet none of a model or of the other loss, and representations [examples, width]. */
function start(loss: string, value: string, dtype: 'float32' | 'float64'): { t: Tape; e: string } {
  const e = `resect/${loss}/representations`;
  const t = new Tape(new Map([[e, { dtype }]]), [], `resect/${loss}/`);
  t.emitAs(e, 'Cast', [t.emit('Flatten', [value])], [int('to', dtypeCode(dtype))]);
  return { t, e };
}
