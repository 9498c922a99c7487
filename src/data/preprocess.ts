import { dataError } from '../errors.js';
import { numeric } from './auxiliary.js';
import { convert, fromNumbers, product, showDims, toNumbers } from './dtypes.js';
import { resizeAxis } from './resize.js';
import type { InputSpec, TensorData } from './types.js';

export type Layout = 'NCHW' | 'NHWC';

/** What turns a stored item into what the model reads: transpose, resize, then `(x * scale - mean) / std`. */
export interface Preprocessing {
  /** Order of the stored item's axes; not transposed when absent. */
  layout?: Layout;
  /** Order of the model's axes; found from its shape when absent. */
  modelLayout?: Layout;
  /** Height and width in pixels. */
  resize?: [number, number];
  scale?: number;
  /** One value, or one per channel (of images) or per element of the last axis. */
  mean?: number[];
  std?: number[];
}

/** Where the model's image input has its channels, 1, 3 or 4 of them; NCHW when its shape does not tell. */
export function layoutOf({ dims }: InputSpec): Layout {
  const channels = (dim: number | string) => dim === 1 || dim === 3 || dim === 4;
  return dims.length === 4 && channels(dims[3]) && !channels(dims[1]) ? 'NHWC' : 'NCHW';
}

/**
 * Makes one item what the model's input takes: its shape (without the batch axis, if it has one) and dtype.
 * Axes of length 1 are added or dropped as needed, and a vector input takes a flattened item.
 * Throws a data error on NaN or infinity (before or after preprocessing), a shape that does not fit, or a value the dtype cannot hold.
 */
export function prepare(
  item: TensorData,
  spec: InputSpec,
  how: Preprocessing,
  where: string,
): TensorData {
  const dtype = numeric(spec);
  checkFinite(item, where);
  const image = resize(transpose(item, spec, how, where), spec, how, where);
  const dims = itemDims(image.dims, spec);
  if (!dims) throw shapeMismatch(image.dims, spec, where);
  const data =
    how.scale === undefined && !how.mean && !how.std
      ? convert(image, dtype, where)
      : normalise(image, spec, how, where, dtype);
  const prepared = { dtype, dims, data };
  checkFinite(prepared, `${where}, as input ${spec.name}`);
  return prepared;
}

function checkFinite(item: TensorData, where: string): void {
  if (!item.dtype.startsWith('float')) return;
  const values = toNumbers(item);
  for (let i = 0; i < values.length; i++)
    if (!Number.isFinite(values[i]))
      throw dataError(`the data has ${Number.isNaN(values[i]) ? 'a NaN' : 'an infinite value'}`, {
        where,
        got: `${values[i]} at element ${i}`,
      });
}

function transpose(
  item: TensorData,
  spec: InputSpec,
  how: Preprocessing,
  where: string,
): TensorData {
  const { layout, modelLayout = layoutOf(spec) } = how;
  if (!layout || layout === modelLayout || item.dims.length === 2) return item;
  if (item.dims.length !== 3)
    throw dataError('only images can have a layout', {
      where,
      expected: 'items with three axes',
      got: showDims(item.dims),
    });
  const [a, b, c] = item.dims;
  // HWC -> CHW moves the last axis to the front; CHW -> HWC moves the first to the back.
  return layout === 'NHWC'
    ? swapBlocks(item, a * b, c, [c, a, b])
    : swapBlocks(item, a, b * c, [b, c, a]);
}

/** Transposes an item seen as a `rows` x `columns` matrix. */
function swapBlocks(item: TensorData, rows: number, columns: number, dims: number[]): TensorData {
  const data = item.data.slice();
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) data[c * rows + r] = item.data[r * columns + c];
  return { ...item, dims, data };
}

function resize(item: TensorData, spec: InputSpec, how: Preprocessing, where: string): TensorData {
  if (!how.resize) return item;
  const rank = item.dims.length;
  if (rank !== 2 && rank !== 3)
    throw dataError('only images can be resized', {
      where,
      expected: 'items with two or three axes',
      got: showDims(item.dims),
    });
  const vertical = rank === 3 && (how.modelLayout ?? layoutOf(spec)) === 'NCHW' ? 1 : 0;
  let values = toNumbers(item);
  const dims = item.dims.slice();
  for (const [axis, size] of [
    [vertical, how.resize[0]],
    [vertical + 1, how.resize[1]],
  ]) {
    if (dims[axis] === size) continue;
    values = resizeAxis(values, dims, axis, size);
    dims[axis] = size;
  }
  return values === item.data ? item : { dtype: 'float64', dims, data: Float64Array.from(values) };
}

/** In float64, rounded once to the dtype. */
function normalise(
  item: TensorData,
  spec: InputSpec,
  how: Preprocessing,
  where: string,
  dtype: TensorData['dtype'],
): TensorData['data'] {
  const { scale = 1, mean = [0], std = [1] } = how;
  const { dims } = item;
  const image = dims.length === 3;
  const axis = image && (how.modelLayout ?? layoutOf(spec)) === 'NCHW' ? 0 : dims.length - 1;
  const channels = dims[axis] ?? 1;
  for (const [name, list] of Object.entries({ mean, std }))
    if (list.length !== 1 && list.length !== channels)
      throw dataError(`\`${name}\` does not fit the data`, {
        where,
        expected: `1 value or ${channels}`,
        got: `${list.length}`,
      });
  const inner = product(dims.slice(axis + 1));
  const values = toNumbers(item);
  const out =
    dtype === 'float32' ? new Float32Array(values.length) : new Float64Array(values.length);
  for (let start = 0, block = 0; start < out.length; start += inner, block++) {
    const m = mean[mean.length === 1 ? 0 : block % channels];
    const d = std[std.length === 1 ? 0 : block % channels];
    for (let i = start; i < start + inner; i++) out[i] = (values[i] * scale - m) / d;
  }
  return dtype === 'float32' ? out : fromNumbers(out, dtype, where);
}

/**
 * The shape an item takes as the model's input: without the batch axis when it can be stacked, the whole
 * input's shape when the item already fills it, undefined when neither fits.
 */
export function itemDims(item: number[], { dims }: InputSpec): number[] | undefined {
  const [, ...perExample] = dims;
  if (dims.length > 0) {
    if (fits(item, perExample)) return item;
    // A fixed first axis that the item fills, as of a state [layers, batch, size], is not the batch.
    if (item[0] !== 1 && item[0] === dims[0] && fits(item, dims)) return item;
    const aligned = align(item, perExample);
    if (aligned) return aligned;
    if (perExample.length === 1 && perExample[0] === product(item)) return [product(item)];
  }
  if (fits(item, dims)) return item;
  // Axes are only dropped here: an added one would make rows of what the item has first, such as channels.
  return item.length > dims.length ? align(item, dims) : undefined;
}

const fits = (item: number[], dims: (number | string)[]) =>
  item.length === dims.length && dims.every((dim, axis) => matches(item[axis], dim));

const matches = (got: number | undefined, dim: number | string) =>
  got !== undefined && (typeof dim === 'string' || dim === got);

/** Adds and drops axes of length 1 so that `item` fits `dims`. */
function align(item: number[], dims: (number | string)[]): number[] | undefined {
  const out: number[] = [];
  let at = 0;
  for (const dim of dims) {
    while (item[at] === 1 && dim !== 1 && item.length - at > dims.length - out.length) at++;
    if (matches(item[at], dim)) out.push(item[at++]);
    else if (dim === 1) out.push(1);
    else return undefined;
  }
  return item.slice(at).every((dim) => dim === 1) ? out : undefined;
}

export function shapeMismatch(item: number[], spec: InputSpec, where: string) {
  const [, ...perExample] = spec.dims;
  return dataError('the data does not have the shape of the model input', {
    where,
    expected: `items of shape ${showDims(perExample)} for input ${spec.name} ${showDims(spec.dims)}`,
    got: showDims(item),
    hint: shapeHint(item, perExample),
  });
}

function shapeHint(item: number[], perExample: (number | string)[]): string {
  if (item.length === 3 && perExample.length === 3) {
    const [a, b, c] = item;
    if (fits([c, a, b], perExample))
      return 'This looks like NHWC; set `layout: NHWC` in a data card.';
    if (fits([b, c, a], perExample))
      return 'This looks like NCHW; set `layout: NCHW` in a data card.';
    const sizes = perExample.filter((dim) => typeof dim === 'number' && dim > 4);
    if (sizes.length === 2)
      return `If these are images, set \`resize: [${sizes.join(', ')}]\` in a data card.`;
  }
  return 'Give an array of the right shape, or map another array to this input in a data card.';
}
