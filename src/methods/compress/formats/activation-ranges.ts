import { roundHalfEven } from '../maths/rounding.js';
import { smallestScale } from './integer-weights.js';

/** What a tensor's values are taken to lie between. */
export interface Range {
  min: number;
  max: number;
}

/** Ranges by value name of the main graph, of the model before anything was folded or rewritten. */
export type ActivationRanges = ReadonlyMap<string, Range>;

/** An affine uint8 grid: x = scale·(code - zeroPoint), scale a float32 value. */
export interface Uint8Grid {
  scale: number;
  zeroPoint: number;
}

/** The grid of 256 levels over a range widened to hold 0, which is one of its levels. */
export function uint8Grid({ min, max }: Range): Uint8Grid {
  const low = Math.min(0, min);
  const high = Math.max(0, max);
  if (!(high - low > 0)) return { scale: 1, zeroPoint: 0 };
  const scale = Math.fround(Math.max((high - low) / 255, smallestScale));
  return { scale, zeroPoint: Math.min(255, Math.max(0, roundHalfEven(-low / scale))) };
}

/** The part of a range that lies in another; a single point where they do not meet. */
export function intersect(a: Range, b: Range): Range {
  const min = Math.min(Math.max(a.min, b.min), b.max);
  return { min, max: Math.max(min, Math.min(a.max, b.max)) };
}
