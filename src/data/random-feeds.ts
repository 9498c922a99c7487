import { dataError } from '../errors.js';
import { auxiliaryInput, auxiliaryKind, checkSize, numeric } from './auxiliary.js';
import { type DType, fromNumbers, product } from './dtypes.js';
import { normal, uniform } from './sampling.js';
import type { InputSpec, TensorData } from './types.js';

/** Sizes of open dimensions that nothing else fixes: height and width of images, and any other. */
const OPEN_SIDE = 224;
const OPEN_LENGTH = 128;
/** Samples of audio, for models that are told the sampling rate: 32 ms at 16 kHz. */
const OPEN_SAMPLES = 512;
/** Random ids stay below any real vocabulary. */
const MAX_ID = 16;
const MAX_ELEMENTS = 2 ** 26;

/**
 * One run of random inputs, for when there is no data at all: floats N(0, 1), bytes 0 to 255, other integers
 * 0 to 15, and auxiliary inputs as for real data. Dimensions with one symbol get one size; open ones get
 * `batch` on the first axis, 224 in the others of rank-4 inputs, 512 where the model is told a sampling
 * rate, and 128 elsewhere. Throws a data error when an input would have more than 2^26 elements.
 */
export function randomFeeds(
  specs: readonly InputSpec[],
  batch: number,
  seed: number,
): Record<string, TensorData> {
  const random = uniform(seed);
  const gauss = normal(random);
  const symbols = new Map<string, number>();
  const feeds: Record<string, TensorData> = {};
  const audio = specs.some((spec) => auxiliaryKind(spec) === 'rate');
  let sequence = audio ? OPEN_SAMPLES : OPEN_LENGTH;
  for (const spec of specs.filter((candidate) => !auxiliaryKind(candidate))) {
    const dims = spec.dims.map((dim, axis) => {
      if (typeof dim === 'number') return dim;
      const open = spec.dims.length === 4 ? OPEN_SIDE : audio ? OPEN_SAMPLES : OPEN_LENGTH;
      const size = symbols.get(dim) ?? (axis === 0 ? batch : open);
      if (dim !== '') symbols.set(dim, size);
      return size;
    });
    // The runtime aborts the process when a recurrent layer gets no sequences at all.
    if (dims.includes(0))
      throw dataError('an input is empty by its shape', {
        where: `input ${spec.name}`,
        got: `[${dims.join(', ')}]`,
      });
    checkSize(spec, dims, MAX_ELEMENTS, 'too large to be filled with random values; give data');
    const dtype = numeric(spec);
    const values = Float64Array.from({ length: product(dims) }, draw(dtype, random, gauss));
    feeds[spec.name] = { dtype, dims, data: fromNumbers(values, dtype, `input ${spec.name}`) };
    if (dims.length === 2 && dtype.startsWith('int')) sequence = dims[1];
  }
  // A frozen batch overrules the wanted one for states, too.
  const rows = Object.values(feeds).find(({ dims }) => dims.length > 0)?.dims[0] ?? batch;
  for (const spec of specs) {
    const kind = auxiliaryKind(spec);
    if (kind) feeds[spec.name] = auxiliaryInput(spec, kind, { batch: rows, symbols, sequence });
  }
  return feeds;
}

function draw(dtype: DType, random: () => number, gauss: () => number): () => number {
  if (dtype.startsWith('float')) return gauss;
  const below = dtype === 'uint8' ? 256 : dtype === 'bool' ? 2 : MAX_ID;
  return () => Math.floor(random() * below);
}
