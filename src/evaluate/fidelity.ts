import type { TensorData } from '../data/index.js';
import { logProbabilities, type Metrics, toFloats } from './metrics.js';

/**
 * How close one model's outputs are to another's on the same inputs, over all floating-point
 * outputs: cosine and relative error (L2 norm of the difference over that of the reference), and,
 * where the last axis of the first output can be a distribution over classes, top-1 agreement and
 * the mean Kullback-Leibler divergence in nats.
 */
export class Fidelity {
  readonly #names: readonly string[];
  readonly #classes: boolean;
  #dot = 0;
  #reference = 0;
  #other = 0;
  #difference = 0;
  #rows = 0;
  #agreed = 0;
  #divergence = 0;
  #compared = 0;
  #mismatched = false;

  /** @param classes whether the first output holds scores of classes (classification, language models). */
  constructor(names: readonly string[], classes: boolean) {
    this.#names = names;
    this.#classes = classes;
  }

  add(reference: Record<string, TensorData>, other: Record<string, TensorData>): void {
    const floats = this.#names.filter((n) => reference[n] && /^float/.test(reference[n].dtype));
    for (const [position, name] of floats.entries()) {
      const a = toFloats(reference[name]);
      const b = other[name] && toFloats(other[name]);
      if (b?.length !== a.length) {
        // Detectors put out as many rows as they find: another count cannot be compared value by value.
        this.#mismatched = true;
        continue;
      }
      for (let i = 0; i < a.length; i++) {
        this.#dot += a[i] * b[i];
        this.#reference += a[i] * a[i];
        this.#other += b[i] * b[i];
        this.#difference += (a[i] - b[i]) ** 2;
      }
      this.#compared += a.length;
      if (position === 0 && this.#classes)
        this.#compareRows(a, b, reference[name].dims.at(-1) ?? 1);
    }
  }

  result(): Metrics {
    const norms = Math.sqrt(this.#reference * this.#other);
    return {
      ...(this.#rows > 0 && {
        agreement: this.#agreed / this.#rows,
        kl: this.#divergence / this.#rows,
      }),
      ...(!this.#mismatched &&
        this.#compared > 0 && {
          cosine: norms === 0 ? Number(this.#difference === 0) : this.#dot / norms,
          // Nothing over nothing is no error, something over nothing an infinite one.
          relativeError: this.#difference === 0 ? 0 : Math.sqrt(this.#difference / this.#reference),
        }),
    };
  }

  #compareRows(
    a: Float32Array | Float64Array,
    b: Float32Array | Float64Array,
    classes: number,
  ): void {
    if (classes < 2) return;
    for (let at = 0; at < a.length; at += classes) {
      const p = a.subarray(at, at + classes);
      const q = b.subarray(at, at + classes);
      const apart = divergence(p, q);
      this.#rows++;
      // A row with NaN agrees with nothing.
      if (argmax(p) === argmax(q) && !Number.isNaN(apart)) this.#agreed++;
      this.#divergence += apart;
    }
  }
}

function argmax(row: Float32Array | Float64Array): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
}

/** KL(p || q) of two rows of scores or probabilities. */
function divergence(p: Float32Array | Float64Array, q: Float32Array | Float64Array): number {
  const lp = logProbabilities(p);
  const lq = logProbabilities(q);
  let sum = 0;
  for (let i = 0; i < lp.length; i++) {
    // What is ruled out (a score of -Infinity) adds nothing, whatever the other model says of it.
    if (lp[i] !== Number.NEGATIVE_INFINITY) sum += Math.exp(lp[i]) * (lp[i] - lq[i]);
  }
  return Math.max(0, sum);
}
