import type { StatisticsAccumulator } from '../calibration/statistics.js';
import type { InputMoments } from './maths/hessian.js';

/** Means over tokens. */
export function momentsOf(statistics: StatisticsAccumulator): InputMoments {
  const { samples, tokens, sum, scaler, hessian } = statistics.finish();
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
