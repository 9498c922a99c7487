import { dataError } from '../errors.js';
import { filled, fromNumbers, isDType, isFloat, isInteger, product, showDims } from './dtypes.js';
import type { InputSpec, TensorData } from './types.js';

/** Elements that one input of a run may have: at most 2 GB of any dtype. */
const MAX_ELEMENTS = 2 ** 28;

/** Inputs that are not data, and what they get when none is given. */
type Kind =
  | 'mask' // ones; zeros over padding
  | 'positions' // 0, 1, 2, ... along the last axis
  | 'segments' // zeros: everything is the first segment
  | 'rate' // 16000 Hz
  | 'state' // zeros: a sequence begins; a key/value cache is empty
  | 'flag'; // false

/** Sizes that the other inputs of the same run fix. */
export interface RunSizes {
  batch: number;
  /** Symbolic dimensions by name. */
  symbols: ReadonlyMap<string, number>;
  /** Tokens per row, padding included. */
  sequence?: number;
  /** Tokens per row that are not padding; all where not given. */
  valid?: readonly number[];
}

/**
 * What an input is for, by its name, dtype and rank; undefined when it is data. A float mask of rank 3 or
 * more counts as data, because it is usually added to the scores (0 = keep) and ones would be wrong.
 */
export function auxiliaryKind({ name, dtype, dims }: InputSpec): Kind | undefined {
  const scalar = dims.length <= 1;
  if (/mask/i.test(name)) return isFloat(dtype) && dims.length > 2 ? undefined : 'mask';
  if (/position/i.test(name) && isInteger(dtype)) return 'positions';
  if (/token_type|segment/i.test(name) && isInteger(dtype)) return 'segments';
  if (/^(sr|sampl(e|ing)_?rate)$/i.test(name) && scalar) return 'rate';
  if (isState(name) && isFloat(dtype) && dims.length > 1) return 'state';
  return dtype === 'bool' && scalar ? 'flag' : undefined;
}

/** Recurrent states and key/value caches; not `hidden_states`, which is an encoder's output. */
const isState = (name: string) =>
  isCache(name) ||
  /^([hc](_?(0|in|x))?|states?|(init(ial)?|prev(ious)?)_?(state|hidden|cell|[hc])|mems?)$/i.test(
    name,
  );
const isCache = (name: string) => /^past|cache/i.test(name);

/** The value of an auxiliary input in a run of these sizes. */
export function auxiliaryInput(spec: InputSpec, kind: Kind, sizes: RunSizes): TensorData {
  const dims = spec.dims.map((_, axis) => resolveDim(spec, axis, kind, sizes));
  checkSize(spec, dims);
  if (kind === 'positions') return tensor(spec, dims, (i) => i % (dims.at(-1) ?? 1));
  if (kind === 'mask') {
    const sequence = dims.at(-1) ?? 1;
    const perRow = product(dims) / (dims.length > 1 ? dims[0] : 1);
    const valid = (i: number) => sizes.valid?.[Math.floor(i / perRow)] ?? sequence;
    return tensor(spec, dims, (i) => (i % sequence < valid(i) ? 1 : 0));
  }
  return constantInput(spec, dims, kind === 'rate' ? 16000 : 0);
}

/** An input of which every element is `value`. */
export const constantInput = (spec: InputSpec, dims: number[], value: number): TensorData => {
  checkSize(spec, dims);
  const dtype = numeric(spec);
  return { dtype, dims, data: filled(dtype, product(dims), value) };
};

function tensor(spec: InputSpec, dims: number[], value: (i: number) => number): TensorData {
  const dtype = numeric(spec);
  const values = Float64Array.from({ length: product(dims) }, (_, i) => value(i));
  return { dtype, dims, data: fromNumbers(values, dtype, `input ${spec.name}`) };
}

/** One dimension of an input that is not data; `kind` is undefined for a constant from a data card. */
export function resolveDim(
  spec: InputSpec,
  axis: number,
  kind: Kind | undefined,
  { batch, symbols, sequence }: RunSizes,
): number {
  const dim = spec.dims[axis];
  if (typeof dim === 'number') return dim;
  const known = symbols.get(dim);
  if (dim !== '' && known !== undefined) return known;
  // A cache is empty along its time axis; what else is open in a state is the batch.
  if (kind === 'state') return isCache(spec.name) && axis > 0 && !/batch/i.test(dim) ? 0 : batch;
  if (kind === 'flag' || kind === 'rate') return 1;
  if (axis === 0 && spec.dims.length > 1) return batch;
  if (kind === undefined) return axis === 0 ? 1 : (sequence ?? 1);
  if (sequence !== undefined) return sequence;
  throw dataError('the size of an input is unknown', {
    where: `input ${spec.name}, axis ${axis}`,
    hint: `Give its values in a data card: \`inputs: {${spec.name}: {value: [...]}}\`.`,
  });
}

export function numeric(spec: InputSpec) {
  if (isDType(spec.dtype)) return spec.dtype;
  throw dataError('no data can be given to an input of this type', {
    where: `input ${spec.name}`,
    got: spec.dtype,
  });
}

/** Throws a data error, before anything is allocated, when an input of a run would have too many elements. */
export function checkSize(
  spec: InputSpec,
  dims: readonly number[],
  limit = MAX_ELEMENTS,
  problem = 'the batch is too large',
): void {
  if (product(dims) > limit)
    throw dataError(problem, {
      where: `input ${spec.name} ${showDims(spec.dims)}`,
      expected: `at most ${limit} elements`,
      got: `${showDims(dims)}, ${product(dims)} elements`,
    });
}

export const missingInput = (spec: InputSpec, available?: string[]) =>
  dataError('the data has nothing for an input of the model', {
    where: `input ${spec.name} (${spec.dtype} ${showDims(spec.dims)})`,
    got: available && `arrays ${available.join(', ')}`,
    hint: `Map an array to it in a data card, \`inputs: {${spec.name}: {array: NAME}}\`, or give a constant, \`{value: 0}\`.`,
  });
