import { roundHalfEven } from '../maths/rounding.js';
import { type Range, uint8Grid } from './activation-ranges.js';

const BINS = 2048;

/** Fractions of the whole range that `leastSquares` tries: 0.30 to 1.00. */
const GRID = 71;
const GRID_START = 0.3;

/** Counts values in 2048 bins of equal width over a range that is known before. */
export class Histogram {
  readonly #counts = new Float64Array(BINS);
  readonly #range: Range;

  constructor({ min, max }: Range) {
    this.#range = { min: Math.min(min, 0), max: Math.max(max, 0) };
  }

  /** Values outside of the range are counted at its ends. */
  add(values: Float32Array): void {
    const { min, max } = this.#range;
    const perUnit = max > min ? BINS / (max - min) : 0;
    for (let i = 0; i < values.length; i++) {
      const bin = Math.floor((values[i] - min) * perUnit);
      this.#counts[bin < 0 ? 0 : bin < BINS ? bin : BINS - 1]++;
    }
  }

  /** The bins that are left when half of the `outside` fraction is cut off at either end. */
  percentile(outside: number): Range {
    const total = this.#counts.reduce((a, b) => a + b, 0);
    const cut = (total * outside) / 2;
    let first = 0;
    for (let below = this.#counts[0]; below <= cut && first < BINS - 1; )
      below += this.#counts[++first];
    let last = BINS - 1;
    for (let above = this.#counts[last]; above <= cut && last > first; )
      above += this.#counts[--last];
    return { min: this.#edge(first), max: this.#edge(last + 1) };
  }

  /** The largest of equals. */
  leastSquares(): Range {
    let best = this.#range;
    let least = Infinity;
    for (let point = GRID - 1; point >= 0; point--) {
      const fraction = GRID_START + (point * (1 - GRID_START)) / (GRID - 1);
      const range = { min: this.#range.min * fraction, max: this.#range.max * fraction };
      const error = this.#error(range);
      if (error < least) {
        least = error;
        best = range;
      }
    }
    return best;
  }

  /** Σ count·(x - x̃)² over the middles of bins, x̃ in uint8 over `range`. */
  #error(range: Range): number {
    const { scale, zeroPoint } = uint8Grid(range);
    let error = 0;
    for (let bin = 0; bin < BINS; bin++) {
      if (this.#counts[bin] === 0) continue;
      const x = this.#edge(bin + 0.5);
      const code = Math.min(255, Math.max(0, roundHalfEven(x / scale) + zeroPoint));
      error += this.#counts[bin] * (x - scale * (code - zeroPoint)) ** 2;
    }
    return error;
  }

  #edge(bin: number): number {
    const { min, max } = this.#range;
    return bin === BINS ? max : min + (bin * (max - min)) / BINS;
  }
}
