/**
 * DARE: drops entries of a task vector at random (in place) and divides the others by the share that
 * stays. Which are dropped follows from the key and an entry's index alone.
 * Source: Yu et al., Language Models are Super Mario, arXiv 2311.03099.
 * @param density share that stays, above 0
 * @param key see `dareKey`
 */
export function dare(vector: Float32Array, density: number, key: number): void {
  const limit = density * 2 ** 32;
  for (let i = 0; i < vector.length; i++)
    vector[i] = hash(i, key) < limit ? vector[i] / density : 0;
}

/**
 * A key of random choices that are the same in whichever order models and tensors come: it follows from
 * the seed, the tensor's name and the model's values of it.
 */
export function dareKey(seed: number, name: string, values: Float32Array): number {
  let key = hash(seed, 0x9e37_79b9);
  for (const character of name) key = hash(character.codePointAt(0) ?? 0, key);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let print = 0;
  for (let i = 0; i < bits.length; i++) print = mix(print ^ bits[i]);
  return hash(print, key);
}

/** 32 well-mixed bits of a counter and a key (the finaliser of MurmurHash3, twice). */
function hash(counter: number, key: number): number {
  let h = mix(Math.imul(counter, 0x9e37_79b1) ^ key);
  h = mix(h + key);
  return h >>> 0;
}

function mix(h: number): number {
  h ^= h >>> 16;
  h = Math.imul(h, 0x85eb_ca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2_ae35);
  return h ^ (h >>> 16);
}
