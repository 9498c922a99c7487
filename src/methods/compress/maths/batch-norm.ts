/**
 * BatchNormalization of a convolution's output as u = a·conv + b, per channel:
 * a = γ/√(var + ε), b = β + a·(bias - mean).
 */
export interface BatchNorm {
  gamma: Float64Array;
  beta: Float64Array;
  mean: Float64Array;
  variance: Float64Array;
  epsilon: number;
}

/** u = scale·conv + shift, per channel; conv without its bias. */
export interface Affine {
  scale: Float64Array;
  shift: Float64Array;
}

/** What is done to a convolution's output of `channels` channels; `bias` is the convolution's own. */
export function outputAffine(channels: number, norm?: BatchNorm, bias?: Float64Array): Affine {
  const scale = new Float64Array(channels);
  const shift = new Float64Array(channels);
  for (let i = 0; i < channels; i++) {
    const c = bias ? bias[i] : 0;
    scale[i] = norm ? norm.gamma[i] / Math.sqrt(norm.variance[i] + norm.epsilon) : 1;
    shift[i] = norm ? norm.beta[i] + scale[i] * (c - norm.mean[i]) : c;
  }
  return { scale, shift };
}
