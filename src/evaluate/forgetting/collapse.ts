import type { Metrics } from '../metrics.js';
import type { Forgetting, ForgettingMeasures } from './measure.js';

/** A loss of this much of a share on what was to be kept is no side effect any more. */
const lostShare = 0.1;
const shares = { accuracy: 'accuracy', agreement: 'agreement with what it was' };

/** Nor is it when one of these grows so many times. */
const growth = 1.5;
const errors = { perplexity: 'perplexity', rmse: 'root mean squared error' };

/** What has to be said of a result: that it forgot what was to be kept, or kept what was to be forgotten. */
export function collapse(forgetting: Forgetting): string[] {
  const { before, after } = forgetting;
  const warnings: string[] = [];
  const sets = keptSets(before, after);
  for (const [metric, what] of Object.entries(shares)) {
    const lost = largest(
      sets,
      (set) => (before[set]?.[metric] ?? Number.NaN) - (after[set]?.[metric] ?? Number.NaN),
    );
    if (lost >= lostShare) warnings.push(collapsed(`it lost ${points(lost)} of ${what}`));
  }
  for (const [metric, name] of Object.entries(errors)) {
    const grown = largest(sets, (set) => ratio(metric, before[set], after[set]));
    if (grown > growth) warnings.push(collapsed(`its ${name} rose ${grown.toFixed(1)} times`));
  }
  if (isKnown(before, after))
    warnings.push('WARNING: nothing was forgotten: the forget set is known as well as before');
  else if (isUnmoved(forgetting))
    warnings.push(
      'WARNING: no measurable change: what the model says of the forget set is hardly another than before',
    );
  return warnings;
}

type SetName = 'retain' | 'test' | 'testRetain';

/**
 * The sets of what was to be kept. A test set as a whole is one only where the labels of the forget set
 * tell that it is not a request for classes: otherwise it may hold what was to be forgotten.
 */
function keptSets(before: ForgettingMeasures, after: ForgettingMeasures): Set<SetName> {
  const labelled = before.forget.agreement === undefined && before.forget.cosine === undefined;
  if (!labelled && before.retain) return new Set(['retain']);
  return new Set(['retain', after.testRetain ? 'testRetain' : 'test']);
}

const collapsed = (what: string): string =>
  `WARNING: the model COLLAPSED: ${what} on what was to be kept. Choose gentler settings`;

/** The largest of the numbers that were measured; NaN, which no limit is below, when none was. */
function largest<T>(sets: Iterable<T>, of: (set: T) => number): number {
  const values = [...sets].map(of).filter((value) => !Number.isNaN(value));
  return values.length > 0 ? Math.max(...values) : Number.NaN;
}

/** A model that puts out NaN has lost everything. */
const ratio = (metric: string, before: Metrics = {}, after: Metrics = {}): number =>
  Number.isNaN(after[metric]) ? Number.POSITIVE_INFINITY : after[metric] / before[metric];

function isKnown(before: ForgettingMeasures, after: ForgettingMeasures): boolean {
  const error = ({ loss, rmse }: Metrics): number => loss ?? rmse;
  return error(after.forget) <= error(before.forget);
}

/**
 * Whether accuracy, agreement or else the direction of outputs fell by less than a point. A loss that rose by
 * a twentieth is a change all the same, unless whole classes were to go: what is recognised was not forgotten.
 */
function isUnmoved({ classes, before: { forget: before }, after: { forget: after } }: Forgetting) {
  const measure = ['accuracy', 'agreement', 'cosine'].find((name) => before[name] !== undefined);
  if (measure === undefined || before[measure] - after[measure] >= 0.01) return false;
  return classes !== undefined || before.loss === undefined || after.loss < 1.05 * before.loss;
}

const points = (share: number): string => `${(100 * share).toFixed(1)} points`;
