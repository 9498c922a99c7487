/** Most candidates that are found in one pass over a pool. */
const PAGE = 32;
/** How many candidates are looked at, at least, to guess which could be on the next page. */
const SAMPLE_BITS = 5;

const SIGN_BIT = 1 << 31;
const INFINITY_BITS = 0x7f800000;

/**
 * Candidates in a row for growing, or for pruning, on behalf of either sign. `take` yields those of
 * a sign, best first. Few are ever taken, so they are found a page at a time and never sorted.
 *
 * The key of a candidate has the sign it stands for in bit 31. The other bits, made from those of a
 * float32, rank it: highest is best, 0 is none (any more).
 */
export class CandidatePool {
  /** Column of each candidate, ascending; the caller fills it, then ranks each of `count`. */
  readonly columns: Int32Array;
  count = 0;
  readonly #keys: Int32Array;
  readonly #floats: Float32Array;
  readonly #positive: Page;
  readonly #negative: Page;

  /** Of equal candidates the lower column comes first; the `highest` if so, for positive signs. */
  constructor(capacity: number, positiveTies: 'lowest' | 'highest') {
    this.columns = new Int32Array(capacity);
    this.#keys = new Int32Array(capacity);
    this.#floats = new Float32Array(this.#keys.buffer);
    this.#positive = new Page(0, positiveTies === 'highest');
    this.#negative = new Page(SIGN_BIT, false);
  }

  /** Forgets what was found: the candidates were ranked anew. */
  restart(): void {
    this.#positive.size = this.#positive.used = 0;
    this.#negative.size = this.#negative.used = 0;
  }

  /** Candidate i: lowest `score` >= 0 first, on behalf of the sign of `side`, of none if that is 0. */
  rankAscending(i: number, score: number, side: number): void {
    this.#floats[i] = side;
    const sign = this.#keys[i] & SIGN_BIT;
    this.#floats[i] = score;
    this.#keys[i] = side === 0 ? 0 : sign | (~SIGN_BIT - this.#keys[i]);
  }

  /** Candidate i: highest |value| first, on behalf of its sign; of none if it is 0 or NaN. */
  rankDescending(i: number, value: number): void {
    this.#floats[i] = value;
    if ((this.#keys[i] & ~SIGN_BIT) > INFINITY_BITS) this.#keys[i] = 0;
  }

  /** Column of the best candidate that was not taken on behalf of a sign; -1 when none is left. */
  take(sign: number): number {
    const page = sign > 0 ? this.#positive : this.#negative;
    if (page.used === page.size) {
      for (let i = 0; i < page.size; i++) this.#keys[page.positions[i]] = 0;
      page.turn(this.#keys, this.count);
    }
    return page.used < page.size ? this.columns[page.positions[page.used++]] : -1;
  }
}

/** The best few candidates on behalf of one sign, in order. */
class Page {
  size = 0;
  used = 0;
  readonly positions = new Int32Array(PAGE);
  readonly #keys = new Int32Array(PAGE);
  readonly #signBit: number;
  readonly #backwards: boolean;

  constructor(signBit: number, backwards: boolean) {
    this.#signBit = signBit;
    this.#backwards = backwards;
  }

  /** Finds the highest of `count` keys; of equal ones the first, or the last if backwards. */
  turn(keys: Int32Array, count: number): void {
    const signBit = this.#signBit;
    this.size = this.used = 0;
    let limit = 0;
    // The best of a few is among the best of all. The page need not be full, only complete down to
    // some key; starting from one that is likely to be high saves most insertions.
    for (let i = 0, step = Math.max(1, count >> SAMPLE_BITS); i < count; i += step) {
      const key = keys[i] ^ signBit;
      if (key > limit) limit = key - 1;
    }
    for (let i = 0; i < count; i++) {
      const position = this.#backwards ? count - 1 - i : i;
      // Keys of the other sign are negative here.
      const key = keys[position] ^ signBit;
      if (key > limit) {
        this.#insert(key, position);
        if (this.size === PAGE) limit = this.#keys[PAGE - 1];
      }
    }
  }

  #insert(key: number, position: number): void {
    const keys = this.#keys;
    const positions = this.positions;
    if (this.size < PAGE) this.size++;
    let i = this.size - 1;
    for (; i > 0 && key > keys[i - 1]; i--) {
      keys[i] = keys[i - 1];
      positions[i] = positions[i - 1];
    }
    keys[i] = key;
    positions[i] = position;
  }
}
