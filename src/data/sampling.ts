/** Uniform numbers in [0, 1) with 53 random bits, from a seed (splitmix32 twice per number). */
export function uniform(seed: number): () => number {
  let state = seed | 0;
  const next32 = () => {
    state = (state + 0x9e3779b9) | 0;
    let z = state ^ (state >>> 16);
    z = Math.imul(z, 0x21f0aaad);
    z ^= z >>> 15;
    z = Math.imul(z, 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  return () => ((next32() >>> 5) * 2 ** 26 + (next32() >>> 6)) / 2 ** 53;
}

/** As `uniform`, with a sequence of its own for each purpose (FNV-1a of both, then as there). */
export function uniformFor(seed: number, purpose: string): () => number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(`${seed} ${purpose}`))
    hash = Math.imul(hash ^ byte, 0x01000193);
  return uniform(hash);
}

/** Standard normal numbers (Box-Muller). */
export function normal(random: () => number): () => number {
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/**
 * `samples` of the numbers 0 to `length - 1`, every subset equally likely, without replacement and
 * ascending, so that files are read forward; all of them when `samples` is undefined or not fewer.
 * Source: Floyd's algorithm, CACM 30(9), 1987.
 */
export function sampleIndices(length: number, samples: number | undefined, seed: number): number[] {
  if (samples === undefined || samples >= length) return Array.from({ length }, (_, i) => i);
  const random = uniform(seed);
  const chosen = new Set<number>();
  for (let top = length - samples; top < length; top++) {
    const pick = Math.floor(random() * (top + 1));
    chosen.add(chosen.has(pick) ? top : pick);
  }
  return [...chosen].sort((a, b) => a - b);
}

/** The items in an order drawn from `random`, every permutation equally likely (Fisher and Yates). */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const order = [...items];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
