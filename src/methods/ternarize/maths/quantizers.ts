import { asymmetricFit } from './asymmetric.js';
import { absmaxFit, absmean, absmedian, sherry, thresholdFit } from './baselines.js';
import { exactFit } from './fit.js';
import { fourLevelFit } from './four-level.js';
import type { FitGroup, Quantizer } from './quantizer.js';

/** Each call makes one with scratch memory of its own. */
const makers = {
  fit: () => ternary(exactFit()),
  absmean: () => ternary(absmean),
  'absmean-scaled': () => ternary(thresholdFit(0.5)),
  absmedian: () => ternary(absmedian()),
  'twn-0.7': () => ternary(thresholdFit(0.7)),
  'twn-0.75': () => ternary(thresholdFit(0.75)),
  sherry: () => ({ ...ternary(sherry), pattern: true }),
  asymmetric: () => ({ ...ternary(asymmetricFit), offsets: true }),
  'four-level': (): Quantizer => ({ ...ternary(fourLevelFit()), low: -2 }),
  int4: () => integer(4),
  int8: () => integer(8),
} satisfies Record<string, () => Quantizer>;

export type QuantizerName = keyof typeof makers;

export const quantizerNames = Object.keys(makers) as QuantizerName[];

export const makeQuantizer = (name: QuantizerName): Quantizer => makers[name]();

const ternary = (fit: FitGroup): Quantizer => ({
  low: -1,
  high: 1,
  offsets: false,
  pattern: false,
  fit,
});

function integer(bits: number): Quantizer {
  const high = 2 ** (bits - 1) - 1;
  const range = { low: -high, high };
  return { ...range, offsets: false, pattern: false, fit: absmaxFit(range) };
}
