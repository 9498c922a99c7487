import { convert, product, showDims } from '../data/dtypes.js';
import type { InputSpec, TensorData } from '../data/index.js';
import { dataError } from '../errors.js';
import type { Feeds } from '../runtime/session.js';
import type { Floats } from './optimizer.js';

/**
 * A batch as the training copy wants it, which is in float32 where the model is in half precision.
 * @param inputs of the model itself
 * @throws {ResectError} exit 6 when an input is missing or does not have the model's type and shape
 */
export function inputFeeds(inputs: readonly InputSpec[], given: Feeds): Feeds {
  const feeds: Feeds = {};
  for (const spec of inputs) {
    const value = given[spec.name];
    const misfit = (got: string) =>
      dataError('The data does not fit the model.', {
        where: `input ${spec.name}`,
        expected: `${spec.dtype} ${showDims(spec.dims)}`,
        got,
        hint: 'Compare with the inputs that `resect inspect` lists.',
      });
    if (!value) throw misfit('nothing');
    const { dtype, dims, data } = value;
    const isHalf = spec.dtype === 'float16' || spec.dtype === 'bfloat16';
    // A shape that is not declared shows as that of a scalar.
    const fits =
      (dtype === spec.dtype || (isHalf && dtype === 'float32')) &&
      (spec.dims.length === 0 || spec.dims.length === dims.length) &&
      spec.dims.every((dim, i) => typeof dim === 'string' || dim === dims[i]);
    if (!fits) throw misfit(`${dtype} ${showDims(dims)}`);
    if (data.length !== product(dims))
      throw misfit(`${data.length} values for ${dtype} ${showDims(dims)}`);
    feeds[spec.name] = isHalf ? floats(value, 'float32', spec.name) : value;
  }
  return feeds;
}

/**
 * Class numbers as the loss wants them.
 * @param spec what the graph takes: int64 [rows]
 * @throws {ResectError} exit 6 for too many or too few, and for classes that the output does not have
 */
export function classTarget(
  target: TensorData | undefined,
  spec: InputSpec,
  classes: number,
): TensorData {
  const fitted = sized(target, spec, 'target');
  const data = convert(fitted, 'int64', 'target') as BigInt64Array;
  const odd = data.findIndex((label) => label < 0n || label >= classes);
  if (odd >= 0)
    throw dataError('A target is no class of the model.', {
      where: `target, row ${odd}`,
      expected: `0 to ${classes - 1}`,
      got: `${data[odd]}`,
      hint: 'Give rows that do not count the weight 0, and any class.',
    });
  return { ...fitted, dtype: 'int64', data };
}

/**
 * Values for an input of floats, row-major in any shape of as many elements.
 * @throws {ResectError} exit 6 for too many or too few
 */
export function floatFeed(
  given: TensorData | undefined,
  spec: InputSpec,
  where: string,
): TensorData {
  return floats(sized(given, spec, where), spec.dtype, where);
}

/** w [rows], 1 / rows where none are given. */
export function weightFeed(given: Floats | undefined, spec: InputSpec, rows: number): TensorData {
  const dtype = spec.dtype === 'float64' ? 'float64' : 'float32';
  const data = given ?? new Float64Array(rows).fill(1 / rows);
  const dims = [data.length];
  const own = data instanceof Float64Array ? 'float64' : 'float32';
  return floatFeed({ dtype: own, dims, data }, { ...spec, dtype }, 'weight');
}

function sized(given: TensorData | undefined, spec: InputSpec, where: string): TensorData {
  const dims = spec.dims.map(Number);
  if (given?.data.length === product(dims)) return { ...given, dims };
  throw dataError(`The ${where} does not fit the output of the model.`, {
    where,
    expected: `${spec.dtype} ${showDims(spec.dims)}`,
    got: given ? `${given.dtype} ${showDims(given.dims)}` : 'nothing',
  });
}

function floats(value: TensorData, dtype: string, where: string): TensorData {
  const wide = dtype === 'float64' ? 'float64' : 'float32';
  return { ...value, dtype: wide, data: convert(value, wide, where) };
}
