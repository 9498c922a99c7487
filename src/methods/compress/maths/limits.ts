/** What a choice of channels must respect. */
export interface Limits {
  /** Disjoint sets of all channels that keep equal counts, and may only replace channels of their own. */
  blocks?: readonly (readonly number[])[];
  /** Sets of which at least one channel stays. */
  parts?: readonly (readonly number[])[];
}

/** Counts what is left while channels go one by one. */
export class Remaining {
  readonly #left: number[] = [];
  readonly #least: number[] = [];
  /** By channel, the sets that it is in. */
  readonly #sets: number[][];

  /** @param keep how many of `channels` stay in the end */
  constructor(channels: number, keep: number, { blocks = [], parts = [] }: Limits = {}) {
    this.#sets = Array.from({ length: channels }, () => []);
    for (const block of blocks) this.#watch(block, keep / blocks.length);
    for (const part of parts) this.#watch(part, 1);
  }

  #watch(channels: readonly number[], least: number): void {
    for (const channel of channels) this.#sets[channel].push(this.#left.length);
    this.#left.push(channels.length);
    this.#least.push(least);
  }

  mayGo(channel: number): boolean {
    return this.#sets[channel].every((set) => this.#left[set] > this.#least[set]);
  }

  remove(channel: number): void {
    for (const set of this.#sets[channel]) this.#left[set]--;
  }
}

/** By channel, the number of its block. */
export function blockNumbers(channels: number, { blocks }: Limits): Int32Array | undefined {
  if (!blocks || blocks.length < 2) return undefined;
  const numbers = new Int32Array(channels);
  for (const [number, block] of blocks.entries())
    for (const channel of block) numbers[channel] = number;
  return numbers;
}
