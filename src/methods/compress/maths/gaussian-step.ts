/**
 * Moments of a layer's pre-activations, from those of its input: Conv or Gemm, then, if there is one,
 * BatchNormalization, which tells their exact means and variances.
 *
 *   W, W̃    filters of the original and of the compressed layer (rounded, rows K, inputs rewritten)
 *   V, r    see gaussian-conv.ts
 *   a, β, μ, var   of BatchNormalization: u = a·(conv - μ) + β
 *   U       D·V·D, the covariance of u; D = diag(a·√(var/Vᵢᵢ)) makes the variances a²·var
 *   ~       of the compressed network
 */
import { type BatchNorm, outputAffine } from './batch-norm.js';
import {
  convolvedCovariance,
  type Filters,
  fitTapCorrelation,
  tapCorrelation,
} from './gaussian-conv.js';
import { type CompressedMoments, type Moments, type Signal, unchanged } from './moments.js';

export interface Layer {
  filters: Filters;
  /** [N] of the convolution itself. */
  bias?: Float64Array;
  norm?: BatchNorm;
}

/** What the original layer makes of its input. */
export interface Step {
  preActivation: Moments;
  r: number;
  /** D [N] */
  scale: Float64Array;
  /** Mean of the convolution's output [N], without its bias. */
  convMean: Float64Array;
}

/** r where there is no BatchNormalization to fit it to. */
const UNFITTED_R = 0.7;

/** U and E u of a layer. r is fitted to BatchNormalization's variances unless it is given. */
export function gaussianStep(input: Moments, layer: Layer, r?: number): Step {
  const { filters, norm, bias } = layer;
  const fitted = r ?? (norm ? fitTapCorrelation(filters, input.covariance, norm.variance) : NaN);
  const used = Number.isNaN(fitted) ? UNFITTED_R : fitted;
  const t = tapCorrelation(filters, used);
  const covariance = convolvedCovariance(filters, filters, input.covariance, t);
  const convMean = outputMean(filters, input.mean);
  const n = filters.outputs;
  const scale = new Float64Array(n).fill(1);
  if (norm) {
    const a = outputAffine(n, norm).scale;
    for (let i = 0; i < n; i++) {
      const predicted = covariance[i * (n + 1)];
      scale[i] = predicted > 0 ? a[i] * Math.sqrt(norm.variance[i] / predicted) : 0;
    }
    scaleBoth(covariance, scale, scale);
    // Not by way of V: exact, also where V is zero.
    for (let i = 0; i < n; i++) covariance[i * (n + 1)] = a[i] * a[i] * norm.variance[i];
  }
  const mean = norm ? norm.beta.slice() : convMean.map((x, i) => x + (bias ? bias[i] : 0));
  return { preActivation: { mean, covariance }, r: used, scale, convMean };
}

export interface CompressedLayer {
  /** W̃: a row per kept output, a column per input of the compressed network. */
  filters: Filters;
  /** K, ascending. */
  kept: Uint32Array;
  /** [n] What is to be added to the convolution's output for what its input lost on average. */
  shift?: Float64Array;
}

/** The compressed layer's moments, and what its parameters have to be for them. */
export interface CompressedStep {
  preActivation: CompressedMoments;
  /** [n] With the shift in its mean, or refitted. */
  norm?: BatchNorm;
  /** [n] With the shift in it when there is no BatchNormalization. */
  bias?: Float64Array;
}

/**
 * U and E u of the compressed layer, with D and r of the original. With `refit`, BatchNormalization's
 * means and variances are moved so that E ũ = β and the variance of ũ is that of u.
 */
export function compressedStep(
  input: Signal,
  layer: Layer,
  step: Step,
  { filters, kept, shift }: CompressedLayer,
  refit = false,
): CompressedStep {
  const source = input.compressed ?? unchanged(input.original);
  const t = tapCorrelation(filters, step.r);
  const covariance = convolvedCovariance(filters, filters, source.covariance, t);
  const cross = convolvedCovariance(layer.filters, filters, source.cross, t);
  const n = kept.length;
  const scale = pick(step.scale, kept);
  scaleBoth(covariance, scale, scale);
  scaleBoth(cross, step.scale, scale);
  const convMean = outputMean(filters, source.mean);
  const moved = convMean.map((x, m) => x - step.convMean[kept[m]]);
  const added = shift ?? new Float64Array(n);
  const { norm, bias } = layer;
  const keptBias = bias && pick(bias, kept);
  if (!norm) {
    const mean = moved.map((x, m) => step.preActivation.mean[kept[m]] + x + added[m]);
    const before = keptBias ?? new Float64Array(n);
    const shifted = keptBias || shift ? before.map((x, m) => x + added[m]) : undefined;
    return { preActivation: { mean, covariance, cross }, bias: shifted };
  }
  const original = pickNorm(norm, kept);
  if (!refit) {
    const { scale: a } = outputAffine(n, original);
    const mean = moved.map((x, m) => original.beta[m] + a[m] * (x + added[m]));
    const shifted = { ...original, mean: original.mean.map((x, m) => x - added[m]) };
    return { preActivation: { mean, covariance, cross }, norm: shifted, bias: keptBias };
  }
  // A channel whose variance is below ε is constant: what the moments say of its mean is not so.
  const mean = original.mean.map((x, m) =>
    original.variance[m] < original.epsilon ? x : x + moved[m],
  );
  const before = pick(diagonal(step.preActivation.covariance, step.scale.length), kept);
  const after = diagonal(covariance, n);
  const refitted = {
    ...original,
    mean,
    variance: original.variance.map((x, m) => (before[m] > 0 ? (x * after[m]) / before[m] : x)),
  };
  const { scale: a } = outputAffine(n, original);
  const { scale: refittedA } = outputAffine(n, refitted);
  const ratio = a.map((x, m) => (x === 0 ? 1 : refittedA[m] / x));
  scaleBoth(covariance, ratio, ratio);
  scaleBoth(cross, new Float64Array(step.scale.length).fill(1), ratio);
  const moments = { mean: original.beta.slice(), covariance, cross };
  return { preActivation: moments, norm: refitted, bias: keptBias };
}

/** Σ over inputs and taps of W·E x [outputs]; zero padding is left out of account. */
export function outputMean(
  { weights, outputs, inputs, groups }: Filters,
  mean: Float64Array,
): Float64Array {
  const depth = inputs / groups;
  const taps = weights.length / (outputs * depth);
  const out = new Float64Array(outputs);
  for (let i = 0, k = 0; i < outputs; i++) {
    const first = Math.floor((i * groups) / outputs) * depth;
    for (let j = 0; j < depth; j++) {
      let sum = 0;
      for (let p = 0; p < taps; p++) sum += weights[k++];
      out[i] += sum * mean[first + j];
    }
  }
  return out;
}

const pick = (values: Float64Array, kept: Uint32Array): Float64Array =>
  Float64Array.from(kept, (channel) => values[channel]);

const pickNorm = ({ gamma, beta, mean, variance, epsilon }: BatchNorm, kept: Uint32Array) => ({
  gamma: pick(gamma, kept),
  beta: pick(beta, kept),
  mean: pick(mean, kept),
  variance: pick(variance, kept),
  epsilon,
});

const diagonal = (a: Float64Array, n: number): Float64Array =>
  Float64Array.from({ length: n }, (_, i) => a[i * (n + 1)]);

/** a[i, j] *= rows[i]·cols[j], in place. */
function scaleBoth(a: Float64Array, rows: Float64Array, cols: Float64Array): void {
  for (let i = 0, k = 0; i < rows.length; i++) {
    for (let j = 0; j < cols.length; j++) a[k++] *= rows[i] * cols[j];
  }
}
