import { outputAffine } from '../../maths/batch-norm.js';
import type { Signal } from '../../maths/moments.js';
import { ChannelValues } from '../channel-tensor.js';
import { readNorm } from '../layers.js';
import { type Rule, refuse } from '../rule.js';
import { affineSignal } from '../signals.js';

/**
 * By itself, behind something that is no layer: its parameters tell means and variances, correlations
 * are those of its input (as in `gaussianStep`).
 */
export const BatchNormalization: Rule = async (c) => {
  const { values, layout } = c.tensor(0);
  const { signal, kept, channels } = values;
  const norm = await readNorm(c.source, c.node, channels);
  if (!norm || layout.folded) return refuse(c, 'parameters that are not one per channel');
  const { scale: a } = outputAffine(channels, norm);
  const { mean, covariance } = signal.original;
  const d = a.map((value, i) => {
    const variance = covariance[i * (channels + 1)];
    return variance > 0 ? value * Math.sqrt(norm.variance[i] / variance) : 0;
  });
  const shift = norm.beta.map((beta, i) => beta - d[i] * mean[i]);
  const after: Signal = affineSignal(signal, d, shift, kept);
  if (signal.compressed && after.compressed) {
    // Means move by what they really differ, also where the variances are not as predicted.
    after.compressed.mean = signal.compressed.mean.map((value, m) => {
      const channel = kept ? kept[m] : m;
      return norm.beta[channel] + a[channel] * (value - mean[channel]);
    });
  }
  return [{ values: ChannelValues.of({ signal: after, kept }, values.r), layout }];
};
