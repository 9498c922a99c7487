import type { Signal } from '../maths/moments.js';
import { compose, type Elementwise, identity, momentsOf } from './elementwise.js';
import type { Layout } from './layout.js';
import { affineSignal, type KeptSignal } from './signals.js';

/** Why the moments of a tensor are not known. */
export class LostSignal extends Error {}

/** Gives up on a tensor: `reason` as in `Softmax "attn" is not linear`. */
export function lose(reason: string): never {
  throw new LostSignal(reason);
}

/** A function of every element of a tensor whose channels are taken to be jointly Gaussian. */
export class ChannelValues {
  readonly #source: Source;
  readonly #map: Elementwise;
  #signal: Signal | undefined;

  private constructor(source: Source, map: Elementwise) {
    this.#source = source;
    this.#map = map;
  }

  /** @param r correlation of neighbouring positions */
  static of({ signal, kept }: KeptSignal, r: number): ChannelValues {
    return new ChannelValues({ signal, kept, r }, identity);
  }

  get kept(): Uint32Array | undefined {
    return this.#source.kept;
  }

  get channels(): number {
    return this.#source.signal.original.mean.length;
  }

  get r(): number {
    return this.#source.r;
  }

  map(f: Elementwise): ChannelValues {
    return new ChannelValues(this.#source, compose(f, this.#map));
  }

  /** f(this, other) element by element, when both are functions of the same elements. */
  combine(other: ChannelValues, f: (a: number, b: number) => number): ChannelValues | undefined {
    if (other.#source !== this.#source) return undefined;
    const [left, right] = [this.#map.apply, other.#map.apply];
    return new ChannelValues(this.#source, { apply: (u) => f(left(u), right(u)) });
  }

  /** @throws {LostSignal} when its variances are not finite */
  get signal(): Signal {
    this.#signal ??= this.#evaluate();
    return this.#signal;
  }

  get keptSignal(): KeptSignal {
    return { signal: this.signal, kept: this.kept };
  }

  #evaluate(): Signal {
    const { signal: before, kept } = this.#source;
    const { pieces } = this.#map;
    if (this.#map === identity) return before;
    if (pieces && pieces.knots.length === 0) {
      const all = (value: number) => new Float64Array(this.channels).fill(value);
      return affineSignal(before, all(pieces.linear), all(pieces.offset), kept);
    }
    const activation = momentsOf(this.#map);
    const { original, compressed } = before;
    const signal: Signal = {
      original: activation.moments(original),
      ...(compressed && { compressed: activation.compressed({ original, compressed }) }),
    };
    if (!hasFiniteVariances(signal)) lose('an elementwise function has no finite variance');
    return signal;
  }
}

interface Source extends KeptSignal {
  r: number;
}

const hasFiniteVariances = ({ original, compressed }: Signal): boolean =>
  [original, ...(compressed ? [compressed] : [])].every(
    ({ mean, covariance }) =>
      mean.every(Number.isFinite) &&
      mean.every((_, i) => Number.isFinite(covariance[i * (mean.length + 1)])),
  );

/** An activation: its moments, and where its channels are. */
export interface ChannelTensor {
  values: ChannelValues;
  layout: Layout;
}
