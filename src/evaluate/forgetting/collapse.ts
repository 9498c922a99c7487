import type { Forgetting, ForgettingMeasures } from './measure.js';

/** A loss of this much accuracy on what was to be kept is no side effect any more; nor is this rise of perplexity. */
const collapsed = { accuracy: 0.1, perplexity: 1.5 };

/** What has to be said of a result: that it forgot what was to be kept, or kept what was to be forgotten. */
export function collapse({ before, after }: Forgetting): string[] {
  const warnings: string[] = [];
  const drop = (set: 'forget' | 'retain' | 'test' | 'testRetain') =>
    (before[set]?.accuracy ?? Number.NaN) - (after[set]?.accuracy ?? Number.NaN);
  const kept = after.testRetain ? 'testRetain' : after.test ? 'test' : 'retain';
  const lost = Math.max(drop(kept), drop('retain') || 0);
  if (lost >= collapsed.accuracy) {
    warnings.push(
      `WARNING: the model COLLAPSED: it lost ${points(lost)} of accuracy on what was to be kept. Choose a larger alpha, or other settings`,
    );
  }
  const [p, q] = [before[kept]?.perplexity ?? 0, after[kept]?.perplexity ?? 0];
  if (q > collapsed.perplexity * p) {
    warnings.push(
      `WARNING: the model COLLAPSED: its perplexity on what was to be kept rose ${(q / p).toFixed(1)} times. Choose a larger alpha, or other settings`,
    );
  }
  if (rises(before, after)) {
    warnings.push('WARNING: nothing was forgotten: the forget set is known as well as before');
  }
  return warnings;
}

function rises(before: ForgettingMeasures, after: ForgettingMeasures): boolean {
  const [b, a] = [before.forget.loss, after.forget.loss];
  return b !== undefined && a !== undefined && a <= b;
}

const points = (share: number): string => `${(100 * share).toFixed(1)} points`;
