import { asymmetricFit } from './asymmetric.js';
import { absmean, absmedian, sherry, thresholdFit } from './baselines.js';
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
} satisfies Record<string, () => Quantizer>;

export type QuantizerName = keyof typeof makers;

export const quantizerNames = Object.keys(makers) as QuantizerName[];

export const makeQuantizer = (name: QuantizerName): Quantizer => makers[name]();

const ternary = (fit: FitGroup): Quantizer => ({ low: -1, offsets: false, pattern: false, fit });
