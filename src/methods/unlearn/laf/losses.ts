import { div, minus, mul, plus, reduceSum, scale, sub, where } from '../../../autodiff/emit.js';
import type { LossGraph } from '../../../autodiff/loss-graph.js';
import { Tape } from '../../../autodiff/tape.js';
import { int } from '../../../graph/build.js';
import { dtypeCode } from '../../../onnx/index.js';
import { emitVae, squaredError, type VaeSizes, type VaeWeights, weightTensors } from './vae.js';

/*
 * The two losses of LAF (arXiv 2404.00506, in the form of the authors' code), of the representations
 * e [kept + forgotten, ...] that a model computes, kept examples first. Sums over examples, not means.
 */

/** What `unlearningLoss` is fed: noise ε [examples, latent] for either autoencoder. */
export const noiseInputs = { kept: 'resect/noise/kept', forgotten: 'resect/noise/forgotten' };

/** What `alignmentLoss` is fed: the representations that the original has, [examples, width]. */
export const teacherInputs = { kept: 'resect/teacher/kept', forgotten: 'resect/teacher/forgotten' };

/** Shorter representations have no direction. */
const least = 1e-6;

/**
 * Σ_kept φ(M) - Σ_forgotten φ(M) with φ(M) = exp(M / (M + 1)), where M = ‖VAE(e) - e‖² is the error of the
 * autoencoder of all examples for kept ones, and of that of the forget set for those that are forgotten:
 * kept representations are to stay what they were like, the others to become what none was like.
 * @param value that holds the representations
 */
export function unlearningLoss(
  value: string,
  sizes: VaeSizes,
  ofAll: VaeWeights,
  ofForgotten: VaeWeights,
): LossGraph {
  const e32 = 'resect/representations';
  const t = lossTape(e32, 'float32');
  t.emitAs(e32, 'Cast', [t.emit('Flatten', [value])], [int('to', dtypeCode('float32'))]);
  const [kept, forgotten] = rows(t, e32, noiseInputs.kept, noiseInputs.forgotten);
  const sum = (e: string, noise: string, prefix: string) => {
    const error = squaredError(t, e, emitVae(t, e, noise, e32, prefix));
    // M / (M + 1) = 1 - 1 / (M + 1), whose gradient does not cancel for large M.
    const share = minus(t, 1, t.emit('Reciprocal', [plus(t, error, 1, e32)]), e32);
    return reduceSum(t, t.emit('Exp', [share]), [0], false);
  };
  const [all, own] = ['resect/vae/all/', 'resect/vae/forgotten/'];
  const loss = sub(t, sum(kept, noiseInputs.kept, all), sum(forgotten, noiseInputs.forgotten, own));
  return {
    nodes: t.nodes,
    initializers: [
      ...weightTensors(sizes, ofAll, all),
      ...weightTensors(sizes, ofForgotten, own),
      ...t.initializers,
    ],
    inputs: Object.values(noiseInputs),
    loss,
    shown: [],
  };
}

/** `alignmentLoss`, and the names of the distances that it shows. */
export interface AlignmentLoss extends LossGraph {
  /** d of each kept example, of each forgotten one. */
  distances: { kept: string; forgotten: string };
}

/**
 * Σ_kept d - kept · log Σ_forgotten exp(d / temperature), d = 1 - cos(e, e of the original): kept
 * representations are to point where they pointed, the others elsewhere. Computed in float64, as d is a
 * small difference at first. Representations without a direction are left out: d = 1, no gradient.
 * @param value that holds the representations
 */
export function alignmentLoss(value: string, temperature: number): AlignmentLoss {
  const e64 = 'resect/representations';
  const t = lossTape(e64, 'float64');
  const wide = (x: string) => t.emit('Cast', [x], [int('to', dtypeCode('float64'))]);
  t.emitAs(e64, 'Cast', [t.emit('Flatten', [value])], [int('to', dtypeCode('float64'))]);
  const [kept, forgotten] = rows(t, e64, teacherInputs.kept, teacherInputs.forgotten);
  const dot = (a: string, b: string) => reduceSum(t, mul(t, a, b), [1], false);
  const distance = (a: string, teacher: string) => {
    const b = wide(teacher);
    const [aa, bb] = [dot(a, a), dot(b, b)];
    const norms = mul(t, plus(t, aa, 1e-12, e64), plus(t, bb, 1e-12, e64));
    const cosine = div(t, dot(a, b), t.emit('Sqrt', [norms]));
    const long = (square: string) => t.emit('Greater', [square, t.scalar(least ** 2, e64)]);
    const directed = t.emit('And', [long(aa), long(bb)]);
    return minus(t, 1, where(t, directed, cosine, t.scalar(0, e64)), e64);
  };
  const distances = {
    kept: distance(kept, teacherInputs.kept),
    forgotten: distance(forgotten, teacherInputs.forgotten),
  };
  // d is at most 2: taken off before exp, it keeps that from overflowing.
  const shifted = scale(t, plus(t, distances.forgotten, -2, e64), 1 / temperature, e64);
  const total = reduceSum(t, t.emit('Exp', [shifted]), [0], false);
  const logSumExp = plus(t, t.emit('Log', [total]), 2 / temperature, e64);
  const count = wide(t.emit('Size', [distances.kept]));
  const loss = sub(t, reduceSum(t, distances.kept, [0], false), mul(t, count, logSumExp));
  return {
    nodes: t.nodes,
    initializers: t.initializers,
    inputs: Object.values(teacherInputs),
    loss,
    distances,
    shown: Object.values(distances),
  };
}

/** A tape whose names do not meet those of a model; `like` is a value of the element type. */
const lossTape = (like: string, dtype: 'float32' | 'float64'): Tape =>
  new Tape(new Map([[like, { dtype }]]), [], 'resect/loss/');

/** The first rows of `e`, as many as `a` has, and the rest, as many as `b` has. */
function rows(t: Tape, e: string, a: string, b: string): string[] {
  const count = (x: string) => t.emit('Shape', [x], [int('end', 1)]);
  const counts = t.emit('Concat', [count(a), count(b)], [int('axis', 0)]);
  return t.emitAll('Split', [e, counts], 2, [int('axis', 0)]);
}
