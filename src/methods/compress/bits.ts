import { layerRule } from '../layer-globs.js';
import type { CompressParameters } from './parameters.js';

/** Of every layer by name; undefined leaves its weights as they are. */
export type BitsOf = (layer: string) => number | undefined;

const unrounded = 32;

/** The first layer and the last, of names in the order of the graph. */
export const edgesOf = (layers: readonly string[]): Set<string | undefined> =>
  new Set([layers[0], layers.at(-1)]);

/** Bits by the parameters alone; what is to be searched for is told as 8. */
export function givenBits(
  { bits, layerBits, edgeBits }: CompressParameters,
  layers: readonly string[],
  selects: (layer: string) => boolean,
): BitsOf {
  const ruled = layerRule(layerBits);
  const edges = edgesOf(layers);
  const general = bits === 'auto' ? 8 : bits;
  return (layer) => {
    const least = edges.has(layer) ? edgeBits : 0;
    const chosen = ruled(layer) ?? (general < unrounded ? Math.max(general, least) : general);
    return chosen >= unrounded || !selects(layer) ? undefined : chosen;
  };
}
