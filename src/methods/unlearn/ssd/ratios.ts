import { countSelected, type ImportancePair } from './dampen.js';

/** The importances of all parameters, tensor by tensor. Called once for every pass over them. */
export type ImportancePairs = () => Iterable<ImportancePair> | AsyncIterable<ImportancePair>;

/** How I_F/I_D, the ratio that α is compared with, is spread over the parameters. */
export interface RatioStatistics {
  /** Parameters with a finite ratio; the percentiles are of these. */
  finite: number;
  /** Parameters that matter for the forget set only (I_D = 0), which every α selects. */
  infinite: number;
  /** Parameters without a ratio, which no α selects: 0/0 (dead units), NaN. */
  undefined: number;
  /** The largest finite ratio; NaN when there is none, like the percentiles. */
  max: number;
  /** In the order asked for. */
  percentiles: number[];
}

/** Bits of a float32 that one pass sorts by. */
const DIGIT = 16;
const DIGITS = 2 ** DIGIT;
const INFINITE = 0x7f80_0000;
const WITHOUT_SIGN = 0x7fff_ffff;

/**
 * Exact percentiles of the ratios, rounded to float32 as in the authors' code, with linear
 * interpolation as `numpy.percentile`.
 *
 * Non-negative floats sort like their bits. One pass counts the ratios by their upper 16 bits, which
 * tells the bucket that each rank wanted is in; a second one counts in these buckets by the lower 16.
 * So nothing is sorted, and memory is half a megabyte for each rank, whatever the number of parameters.
 * @param percentages in [0, 100]
 */
export async function ratioStatistics(
  pairs: ImportancePairs,
  percentages: readonly number[] = [50, 90, 99, 99.9],
): Promise<RatioStatistics> {
  // Float64, because there may be more than 2^32 parameters.
  const upper = new Float64Array(DIGITS);
  let parameters = 0;
  for await (const pair of pairs()) {
    parameters += pair.forget.length;
    forEachRatio(pair, (bits) => upper[bits >>> DIGIT]++);
  }
  const infinite = upper[INFINITE >>> DIGIT];
  upper[INFINITE >>> DIGIT] = 0;
  const finite = upper.reduce((sum, count) => sum + count, 0);
  const counts = { finite, infinite, undefined: parameters - finite - infinite };
  if (finite === 0) return { ...counts, max: Number.NaN, percentiles: percentages.map(() => NaN) };

  const positions = percentages.map((percentage) => (percentage / 100) * (finite - 1));
  const ranks = [finite - 1, ...positions.flatMap((at) => [Math.floor(at), Math.ceil(at)])];
  const found = await valuesAt(ranks, upper, pairs);
  const percentiles = positions.map((at) =>
    interpolate(found(Math.floor(at)), found(Math.ceil(at)), at % 1),
  );
  return { ...counts, max: found(finite - 1), percentiles };
}

/** The ratios of the given ranks (0: the smallest), when `upper` counts them by their upper bits. */
async function valuesAt(
  ranks: readonly number[],
  upper: Float64Array,
  pairs: ImportancePairs,
): Promise<(rank: number) => number> {
  const buckets = new Map<number, Float64Array>();
  for (const rank of ranks) {
    const { digit } = locate(upper, rank);
    if (!buckets.has(digit)) buckets.set(digit, new Float64Array(DIGITS));
  }
  const lower = Array.from({ length: DIGITS }, (_, digit) => buckets.get(digit));
  for await (const pair of pairs())
    forEachRatio(pair, (bits) => {
      const counts = lower[bits >>> DIGIT];
      if (counts) counts[bits & (DIGITS - 1)]++;
    });
  return (rank) => {
    const { digit, before } = locate(upper, rank);
    const rest = locate(buckets.get(digit)!, rank - before);
    ratioBits[0] = digit * DIGITS + rest.digit;
    return ratio[0];
  };
}

/** The digit of the value of a rank, and how many values have a smaller one. */
function locate(counts: Float64Array, rank: number): { digit: number; before: number } {
  let digit = 0;
  let before = 0;
  while (before + counts[digit] <= rank) before += counts[digit++];
  return { digit, before };
}

const ratio = new Float32Array(1);
const ratioBits = new Uint32Array(ratio.buffer);

/** Calls `take` with the bits of every ratio but NaN. Importances are not negative, except for -0. */
function forEachRatio({ forget, full }: ImportancePair, take: (bits: number) => void): void {
  for (let i = 0; i < forget.length; i++) {
    ratio[0] = forget[i] / full[i];
    const bits = ratioBits[0] & WITHOUT_SIGN;
    if (bits <= INFINITE) take(bits);
  }
}

/** From `a` to `b` by `share`, as numpy does it for float32: the nearer end is exact. */
function interpolate(a: number, b: number, share: number): number {
  const step = Math.fround(b - a);
  return share < 0.5 ? a + step * share : b - step * (1 - share);
}

/** How many parameters `alpha` selects, over all tensors. */
export async function selectedBy(pairs: ImportancePairs, alpha: number): Promise<number> {
  let selected = 0;
  for await (const pair of pairs()) selected += countSelected(pair, alpha);
  return selected;
}

/**
 * The percentage whose percentile of the ratios adaptive SSD takes for α: it leaves about
 * ln(1 + 100·|D_f|/|D|) percent of the parameters above (ASSD, arXiv 2402.10098).
 */
export const assdPercentage = (forgetSamples: number, fullSamples: number): number =>
  100 - Math.log(1 + (100 * forgetSamples) / fullSamples);

/**
 * A value for α to suggest when the one that was given selected nothing: that of adaptive SSD, or less
 * where ratios tie, rounded down to two digits. Selects at least one parameter, unless the importances
 * are subnormal numbers.
 * @param statistics with the percentile at `assdPercentage` as `percentiles[position]`
 * @returns undefined when there is none, because nothing matters for the forget set
 */
export function suggestAlpha(statistics: RatioStatistics, position: number): number | undefined {
  const { max } = statistics;
  if (!(max > 0)) return undefined;
  // Interpolated close to zero, a percentile is smaller than any float32, which no ratio is.
  const alpha = Math.fround(statistics.percentiles[position]) || max;
  return roundDown(Math.min(alpha, 0.99 * max));
}

/** To two significant digits. */
function roundDown(value: number): number {
  const unit = 10 ** (Math.floor(Math.log10(value)) - 1);
  return Number((Math.floor(value / unit) * unit).toPrecision(2));
}
