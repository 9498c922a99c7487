import { fourBits, type Packing, packCodes, twoBits, unpackCodes } from './formats/pack.js';
import type { LayerCodes } from './maths/codes.js';
import type { Levels } from './parameters.js';

/** Codes while they wait to be stored, in as few bits as they will have. */
export interface KeptCodes extends Omit<LayerCodes, 'codes'> {
  levels: Levels;
  packed: Uint8Array;
}

const packings: Record<Levels, Packing | undefined> = {
  3: twoBits,
  4: twoBits,
  16: fourBits,
  256: undefined,
};

/** Bits that formats store codes in. */
export const bitsOf: Record<Levels, 2 | 4 | 8> = { 3: 2, 4: 2, 16: 4, 256: 8 };

export function keepCodes({ codes, ...rest }: LayerCodes, levels: Levels): KeptCodes {
  const packing = packings[levels];
  const packed = packing
    ? packCodes(codes, rest, packing)
    : Uint8Array.from(codes, (code) => code & 255);
  return { ...rest, levels, packed };
}

export function restoreCodes({ packed, levels, ...rest }: KeptCodes): LayerCodes {
  const packing = packings[levels];
  return { ...rest, codes: packing ? unpackCodes(packed, rest, packing) : new Int8Array(packed) };
}
