/**
 * Selection by rank among float32 magnitudes, given as their bits in an Int32Array. Without the sign
 * bit, which is ignored, bits are in the order of the values; NaN is last.
 */

const MAGNITUDE = 0x7fffffff;

const BINS = 2048;
/** Up to this many candidates are sorted rather than counted. */
const FEW = 64;
/** Groups up to this size are ranked by comparing every pair. */
const SMALL_GROUP = 32;

export class RankSelector {
  readonly #histogram = new Int32Array(BINS);
  #candidates = new Int32Array(FEW);
  /** How many values were smaller than the last one that was selected. */
  #below = 0;

  /**
   * Keep flags of `bits[from..to)`, into `keep` from `start + from`: 0 for the `count` lowest, the
   * first of equal ones first, and 1 for the others.
   */
  flagLowest(
    bits: Int32Array,
    from: number,
    to: number,
    count: number,
    keep: Uint8Array,
    start: number,
  ): void {
    if (to - from <= SMALL_GROUP) flagLowestOfFew(bits, from, to, count, keep, start);
    else if (count === 0) keep.fill(1, start + from, start + to);
    else {
      const last = this.#select(bits, from, to, count - 1);
      let ties = count - this.#below;
      for (let i = from; i < to; i++) {
        const value = bits[i] & MAGNITUDE;
        if (value === last && ties > 0) {
          ties--;
          keep[start + i] = 0;
        } else {
          // `value >= last` without a branch, which would often be mispredicted.
          keep[start + i] = 1 - ((value - last) >>> 31);
        }
      }
    }
  }

  /**
   * Keep flags of all `bits`: 0 up to the value of rank `rank` (0 = lowest), all that equal it
   * included. Rank 0 keeps all, rank bits.length none.
   */
  flagUpToRank(bits: Int32Array, rank: number, keep: Uint8Array): void {
    if (rank === 0) keep.fill(1);
    else if (rank >= bits.length) keep.fill(0);
    else {
      const threshold = this.#select(bits, 0, bits.length, rank);
      for (let i = 0; i < bits.length; i++) keep[i] = (bits[i] & MAGNITUDE) > threshold ? 1 : 0;
    }
  }

  /**
   * The magnitude of rank `k` (0 = lowest, k < to - from): a histogram of the 11 leading bits, then
   * of the following ones for the candidates in the bin that holds rank k. O(count) whatever the
   * distribution.
   */
  #select(bits: Int32Array, from: number, to: number, k: number): number {
    const histogram = this.#histogram;
    let rank = k;
    let source = bits;
    let first = from;
    let last = to;
    for (let shift = 20; shift >= 0; shift -= 10) {
      histogram.fill(0);
      for (let i = first; i < last; i++) histogram[(source[i] >> shift) & (BINS - 1)]++;
      let bin = 0;
      while (histogram[bin] <= rank) rank -= histogram[bin++];
      if (histogram[bin] > this.#candidates.length) {
        this.#candidates = new Int32Array(histogram[bin]);
      }
      const candidates = this.#candidates;
      let count = 0;
      for (let i = first; i < last; i++) {
        if (((source[i] >> shift) & (BINS - 1)) === bin)
          candidates[count++] = source[i] & MAGNITUDE;
      }
      source = candidates;
      first = 0;
      last = count;
      if (count <= FEW) {
        sortByInsertion(candidates, count);
        break;
      }
    }
    // The candidates are sorted, or all equal.
    const value = source[rank];
    let ties = 0;
    while (ties < rank && source[rank - ties - 1] === value) ties++;
    this.#below = k - ties;
    return value;
  }
}

/** Keeps a value that at least `count` others precede: lower ones, and equal ones before it. */
function flagLowestOfFew(
  bits: Int32Array,
  from: number,
  to: number,
  count: number,
  keep: Uint8Array,
  start: number,
): void {
  for (let j = from; j < to; j++) {
    const value = bits[j] & MAGNITUDE;
    let before = 0;
    // (a - b) >>> 31 is 1 exactly when a < b.
    for (let i = from; i < j; i++) before += 1 - ((value - (bits[i] & MAGNITUDE)) >>> 31);
    for (let i = j + 1; i < to; i++) before += ((bits[i] & MAGNITUDE) - value) >>> 31;
    keep[start + j] = before >= count ? 1 : 0;
  }
}

function sortByInsertion(values: Int32Array, count: number): void {
  for (let i = 1; i < count; i++) {
    const value = values[i];
    let j = i;
    for (; j > 0 && values[j - 1] > value; j--) values[j] = values[j - 1];
    values[j] = value;
  }
}
