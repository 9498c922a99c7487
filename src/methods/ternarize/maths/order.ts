/** Sorts weights by magnitude, again and again in the same memory. */
export class MagnitudeOrder {
  #magnitudes = new Float64Array(0);
  #order = new Uint32Array(0);
  #spare = new Uint32Array(0);

  /**
   * Positions of `w` from the largest magnitude to the smallest, equal ones in their own order
   * (merge sort). Valid until the next call.
   */
  of(w: Float64Array): Uint32Array {
    const n = w.length;
    if (this.#order.length < n) {
      this.#magnitudes = new Float64Array(n);
      this.#order = new Uint32Array(n);
      this.#spare = new Uint32Array(n);
    }
    for (let i = 0; i < n; i++) {
      this.#magnitudes[i] = Math.abs(w[i]);
      this.#order[i] = i;
    }
    for (let width = 1; width < n; width *= 2) {
      for (let start = 0; start < n; start += 2 * width) {
        const middle = Math.min(start + width, n);
        merge(
          this.#magnitudes,
          this.#order,
          this.#spare,
          start,
          middle,
          Math.min(middle + width, n),
        );
      }
      [this.#order, this.#spare] = [this.#spare, this.#order];
    }
    return this.#order.subarray(0, n);
  }
}

/** Merges the runs [start, middle) and [middle, end) of `from` into `to`. */
function merge(
  magnitudes: Float64Array,
  from: Uint32Array,
  to: Uint32Array,
  start: number,
  middle: number,
  end: number,
): void {
  let left = start;
  let right = middle;
  for (let k = start; k < end; k++) {
    const takeLeft =
      left < middle && (right >= end || magnitudes[from[left]] >= magnitudes[from[right]]);
    to[k] = takeLeft ? from[left++] : from[right++];
  }
}
