/** A step by about 1.5, in numbers that people write. */
const MANTISSAS = [1, 1.5, 2, 3, 5, 7];
/** Published settings end at 50; beyond this, ratios tell of parameters that matter to nobody. */
const LARGEST = 1000;

/**
 * Values of α to try: that of adaptive SSD, then a geometric grid from 1.5 up to 1000, all below the
 * largest ratio, because no other selects anything.
 * @param assd see `assdPercentage`
 * @param maxRatio the largest finite I_F/I_D
 */
export function alphaCandidates(assd: number, maxRatio: number): number[] {
  const grid = [1, 10, 100].flatMap((decade) => MANTISSAS.map((mantissa) => decade * mantissa));
  const candidates = [assd, ...grid.slice(1), LARGEST];
  return [...new Set(candidates)].filter((alpha) => alpha > 0 && alpha < maxRatio);
}

/** What came of one α, as accuracies in [0, 1]. */
export interface AlphaOutcome {
  alpha: number;
  forgetAccuracy: number;
  retainAccuracy: number;
}

export interface AlphaGoal {
  /** The forget set counts as forgotten at this accuracy or below. */
  forgetTarget: number;
  /** Accuracy on the retain set before. */
  retainBefore: number;
  /** What it may lose at most. */
  maxRetainDrop: number;
}

export interface AlphaChoice<T extends AlphaOutcome> {
  /** Undefined when no outcome meets the goal. */
  chosen?: T;
  /**
   * Outcomes that no other one beats in both accuracies, from the least forgotten on; of equal ones
   * that with the larger α.
   */
  pareto: T[];
}

/** Accuracies are quotients: a drop from 0.98 to 0.96 is 0.02 though float64 says a little more. */
const ROUNDING = 1e-9;

/**
 * Of the outcomes that meet the goal the one with the largest α, as it changes the fewest parameters.
 * Outcomes with NaN are left out.
 */
export function chooseAlpha<T extends AlphaOutcome>(
  outcomes: readonly T[],
  { forgetTarget, retainBefore, maxRetainDrop }: AlphaGoal,
): AlphaChoice<T> {
  const descending = outcomes
    .filter(({ forgetAccuracy, retainAccuracy }) => !Number.isNaN(forgetAccuracy + retainAccuracy))
    .sort((a, b) => b.alpha - a.alpha);
  const chosen = descending.find(
    ({ forgetAccuracy, retainAccuracy }) =>
      forgetAccuracy <= forgetTarget + ROUNDING &&
      retainBefore - retainAccuracy <= maxRetainDrop + ROUNDING,
  );
  return { chosen, pareto: paretoFront(descending) };
}

/** @param outcomes in order of preference among equal ones */
function paretoFront<T extends AlphaOutcome>(outcomes: readonly T[]): T[] {
  const ascending = [...outcomes].sort(
    (a, b) => a.forgetAccuracy - b.forgetAccuracy || b.retainAccuracy - a.retainAccuracy,
  );
  const front: T[] = [];
  for (const outcome of ascending) {
    const best = front.at(-1)?.retainAccuracy ?? Number.NEGATIVE_INFINITY;
    if (outcome.retainAccuracy > best) front.push(outcome);
  }
  return front.reverse();
}
