import { StatisticsAccumulator } from '../calibration/statistics.js';
import type { InputMoments } from './maths/hessian.js';

/** Means over tokens, of all samples of the given statistics. */
export function momentsOf(parts: readonly StatisticsAccumulator[]): InputMoments {
  const [first, ...others] = new Set(parts);
  let all = first;
  if (others.length > 0) {
    all = new StatisticsAccumulator(first.cols, { gram: first.hasGram });
    for (const part of [first, ...others]) all.merge(part);
  }
  const { samples, tokens, sum, scaler, hessian } = all.finish();
  const perToken = samples / tokens;
  // 2/samples·Σxxᵀ, a copy of its own.
  if (hessian) for (let i = 0; i < hessian.length; i++) hessian[i] *= perToken / 2;
  return {
    tokens,
    mean: Float64Array.from(sum, (s) => s * perToken),
    squares: Float64Array.from(scaler, (s) => s * perToken),
    second: hessian,
  };
}
