/** What is kept of the entries of a tensor: those above a magnitude, and the first few at it. */
export interface Trim {
  /** Bits of the magnitude, a float32. */
  threshold: number;
  /** How many entries of just that magnitude are kept, in order of index. */
  ties: number;
}

const lowBits = 15;
const bins = 2 ** 16;

/** Bits of |x|, which order float32 magnitudes as integers do. */
const magnitudes = (values: Float32Array): Uint32Array =>
  new Uint32Array(values.buffer, values.byteOffset, values.length);

const withoutSign = 0x7fff_ffff;

/**
 * The `keep` entries of largest magnitude of one or more tensors, ties by index; in two passes over
 * values that need not be in memory together.
 */
export class MagnitudeRank {
  readonly #high = new Float64Array(bins);
  #keep = 0;
  #bin = -1;
  #rest = 0;
  #low = new Float64Array(2 ** lowBits);

  /** First pass. */
  count(values: Float32Array): void {
    const bits = magnitudes(values);
    for (let i = 0; i < bits.length; i++) this.#high[(bits[i] & withoutSign) >>> lowBits]++;
  }

  /** Between the passes. @param keep how many entries, of all */
  choose(keep: number): void {
    this.#keep = keep;
    let left = keep;
    for (let bin = bins - 1; bin >= 0; bin--) {
      if (this.#high[bin] >= left) {
        this.#bin = bin;
        this.#rest = left;
        return;
      }
      left -= this.#high[bin];
    }
    this.#bin = 0;
    this.#rest = this.#high[0];
  }

  /** Second pass. */
  refine(values: Float32Array): void {
    const bits = magnitudes(values);
    for (let i = 0; i < bits.length; i++) {
      const m = bits[i] & withoutSign;
      if (m >>> lowBits === this.#bin) this.#low[m & (2 ** lowBits - 1)]++;
    }
  }

  /** Of all values together. */
  result(): Trim {
    if (this.#keep === 0) return { threshold: withoutSign, ties: 0 };
    let left = this.#rest;
    for (let low = 2 ** lowBits - 1; low >= 0; low--) {
      if (this.#low[low] >= left) return { threshold: this.#bin * 2 ** lowBits + low, ties: left };
      left -= this.#low[low];
    }
    return { threshold: 0, ties: left };
  }
}

/** The trim of one tensor. */
export function trimOf(values: Float32Array, keep: number): Trim {
  const rank = new MagnitudeRank();
  rank.count(values);
  rank.choose(keep);
  rank.refine(values);
  return rank.result();
}

/** Sets (in place) what is not kept to 0. Returns how many ties were kept. */
export function applyTrim(values: Float32Array, { threshold, ties }: Trim): number {
  const bits = magnitudes(values);
  let kept = 0;
  for (let i = 0; i < bits.length; i++) {
    const m = bits[i] & withoutSign;
    if (m > threshold) continue;
    if (m === threshold && kept < ties) kept++;
    else bits[i] = 0;
  }
  return kept;
}
