/** A corruption and its severities, by the names of evaluation sets. */
export interface Corruption {
  name: string;
  /** Positions of its sets. */
  sets: number[];
}

/** The set that is not drifted, by name. */
const cleanName = 'clean';

/** Sets named `noise@1`, `noise@3` are one corruption; `clean` is none. */
export function corruptions(names: readonly string[]): { clean?: number; all: Corruption[] } {
  const found = new Map<string, number[]>();
  for (const [i, name] of names.entries()) {
    const [corruption] = name.split('@');
    if (name !== cleanName) found.set(corruption, [...(found.get(corruption) ?? []), i]);
  }
  const clean = names.indexOf(cleanName);
  return {
    ...(clean >= 0 && { clean }),
    all: [...found].map(([name, sets]) => ({ name, sets })),
  };
}

/** Mean corruption error, in percent of a reference's. */
export interface CorruptionError {
  mce: number;
  /** Of how much the errors grow from the clean set; absent without one, or when the reference's do not. */
  relative?: number;
}

/**
 * mCE: the mean over corruptions of Σ errors over severities / Σ errors of the reference
 * (Hendrycks and Dietterich, arXiv 1903.12261).
 * @param errors, reference share of wrong answers on each set
 */
export function meanCorruptionError(
  names: readonly string[],
  errors: readonly number[],
  reference: readonly number[],
): CorruptionError {
  const { clean, all } = corruptions(names);
  const sum = (of: readonly number[], sets: readonly number[], minus = 0) =>
    sets.reduce((total, i) => total + of[i] - minus, 0);
  const mean = (ratio: (c: Corruption) => number) =>
    (100 * all.reduce((total, c) => total + ratio(c), 0)) / all.length;
  const mce = mean(({ sets }) => sum(errors, sets) / sum(reference, sets));
  if (clean === undefined) return { mce };
  const relative = mean(
    ({ sets }) => sum(errors, sets, errors[clean]) / sum(reference, sets, reference[clean]),
  );
  return { mce, ...(Number.isFinite(relative) && { relative }) };
}
