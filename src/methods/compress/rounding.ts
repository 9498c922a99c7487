import { type Filters, tapCorrelation } from './maths/gaussian-conv.js';
import { gptq } from './maths/gptq.js';
import type { Moments } from './maths/moments.js';
import {
  dequantize,
  leastSquaresScales,
  maxScales,
  type Quantized,
  quantize,
} from './maths/quantize.js';

/** Of the correlation of positions, for GPTQ, damped like that of channels. */
const TAP_DAMPING = 0.01;

/** How the weights of a layer are to be rounded. */
export interface Rounding {
  bits: number;
  granularity: 'channel' | 'tensor';
}

export interface RoundedFilters {
  filters: Filters;
  /** float32 values: one for each output channel, or a single one. */
  scales: Float64Array;
}

/** From so many bits on, clipping gains nothing. */
const unclipped = 9;

/** Beyond so many bits per channel, error feedback gains nothing that the next layer does not. */
const feedbackBits = 3;

/**
 * Filters on a symmetric grid, clipped where that lowers the squared error. With the moments of what they
 * read, and where it helps, errors are fed back to weights that are still to be rounded (GPTQ).
 * @param r correlation of neighbouring positions
 */
export function roundFilters(
  filters: Filters,
  { bits, granularity }: Rounding,
  input?: Moments & { r: number },
): RoundedFilters {
  const { weights, outputs, groups } = filters;
  const runs = granularity === 'channel' ? outputs : 1;
  const chosen =
    bits < unclipped ? leastSquaresScales(weights, runs, bits) : maxScales(weights, runs, bits);
  // What is stored are float32 scales; below the smallest normal one nothing can be told apart.
  const scales = chosen.map((scale) => Math.fround(Math.max(scale, 2 ** -126)));
  const fed = input && groups === 1 && (bits <= feedbackBits || granularity === 'tensor');
  const coded: Quantized | undefined = fed
    ? gptq(
        weights,
        { channels: input.covariance, taps: tapCorrelation(filters, input.r) },
        { bits, scales, tapDamping: TAP_DAMPING },
      )
    : undefined;
  const rounded = dequantize(coded ?? quantize(weights, scales, bits));
  return { filters: { ...filters, weights: rounded }, scales };
}
