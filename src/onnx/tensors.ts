import { constants } from 'node:buffer';
import { modelError } from '../errors.js';
import {
  type DType,
  dtypeBits,
  dtypeByteLength,
  dtypeCode,
  dtypeOf,
  elementCount,
} from './dtypes.js';
import {
  type ExternalRange,
  externalInteger,
  externalRange,
  isExternal,
  readRange,
} from './external.js';
import type { Model } from './model.js';
import type { TensorProto } from './schema.js';
import { readTyped, typedField } from './typed.js';
import { decodeFloat32 } from './values.js';

export interface TensorInfo {
  name: string;
  dtype: DType;
  /** Empty for a scalar. */
  shape: number[];
  elements: number;
  /** Bytes of the values in raw form, sub-byte elements packed; for strings and unknown types what is stored. */
  byteLength: number;
  /** Where the values are: `raw_data`, a typed field, another file, or nowhere. */
  place: 'raw' | 'typed' | 'external' | 'empty';
}

/**
 * What a tensor says about itself. Cheap: reads no values and no files.
 * @throws modelError for impossible dims, and when `raw_data` is not of the length that shape and
 *   dtype ask for
 */
export function tensorInfo(tensor: TensorProto): TensorInfo {
  const name = tensor.name ?? '';
  const where = `tensor "${name}"`;
  const shape = tensor.dims;
  const dtype = dtypeOf(tensor.dataType);
  const elements = elementCount(shape, where);
  const place = placeOf(tensor, dtype);
  const byteLength = dtypeBits(dtype)
    ? dtypeByteLength(dtype, elements)
    : storedBytes(tensor, place);
  if (place === 'raw' && tensor.rawData?.length !== byteLength)
    throw modelError('a tensor does not hold as many bytes as its shape says', {
      where,
      expected: `${byteLength} bytes of ${dtype} for shape [${shape.join(', ')}]`,
      got: `${tensor.rawData?.length} bytes`,
      hint: 'The file is damaged: get or export the model again.',
    });
  return { name, dtype, shape, elements, byteLength, place };
}

function placeOf(tensor: TensorProto, dtype: DType): TensorInfo['place'] {
  if (isExternal(tensor)) return 'external';
  if (tensor.rawData?.length) return 'raw';
  const field = dtype === 'string' ? 'stringData' : typedField(dtype);
  return field && tensor[field]?.length ? 'typed' : 'empty';
}

/** Bytes that a tensor without a fixed element width keeps. */
function storedBytes(tensor: TensorProto, place: TensorInfo['place']): number {
  if (place === 'external') return externalInteger(tensor, 'length') ?? 0;
  return [tensor.rawData, ...(tensor.stringData ?? [])].reduce(
    (sum, bytes) => sum + (bytes?.length ?? 0),
    0,
  );
}

/**
 * The values of a tensor in raw form (little-endian, row-major, sub-byte elements packed from the
 * low bits), with the model's edit applied. A view on the model where possible: do not write to it.
 * @throws modelError when there are none, when the range or field does not agree with the shape, and
 *   for strings; ioError when external weights cannot be read
 */
export async function readTensorBytes(model: Model, tensor: TensorProto): Promise<Uint8Array> {
  const stored = await readStored(model, tensor);
  const edit = model.edits.get(tensor);
  if (!edit) return stored;
  const edited = await edit(stored);
  if (edited.length !== stored.length)
    throw new Error(`an edit of "${tensor.name}" made ${edited.length} of ${stored.length} bytes`);
  return edited;
}

/**
 * As `readTensorBytes`, of `length` bytes from `offset` on, and without edits: only what is asked for is
 * read of an external tensor.
 * @throws as `readTensorBytes`
 */
export async function readTensorPart(
  model: Model,
  tensor: TensorProto,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const info = tensorInfo(tensor);
  if (info.place !== 'external')
    return (await readStored(model, tensor)).subarray(offset, offset + length);
  const range = tensorRange(model.path, tensor, info);
  return readRange({ ...range, offset: range.offset + offset, length });
}

async function readStored(model: Model, tensor: TensorProto): Promise<Uint8Array> {
  const info = tensorInfo(tensor);
  const { dtype, place, byteLength, elements } = info;
  const where = `tensor "${info.name}"`;
  if (dtype === 'string' || (dtype === 'unknown' && place === 'typed'))
    throw modelError('the values of a tensor have no raw form', {
      where,
      got: `type ${dtype}`,
      hint: 'Exclude it.',
    });
  if (place !== 'empty' && byteLength > constants.MAX_LENGTH)
    throw modelError('a tensor is too large to be treated', {
      where,
      expected: `at most ${constants.MAX_LENGTH} bytes`,
      got: `${byteLength} bytes`,
      hint: 'Exclude it.',
    });
  if (place === 'external') return readRange(tensorRange(model.path, tensor, info));
  const inline = readInlineBytes(tensor);
  if (inline) return inline;
  throw modelError('a tensor has no values', {
    where,
    expected: `${elements} elements of ${dtype}`,
    hint: 'The weights were stripped from this model: get the whole one.',
  });
}

/**
 * As `readTensorBytes`, at once and without edits, for tensors whose values are in the model itself:
 * shapes, axes, scales. Undefined for others.
 * @throws modelError when the values do not agree with the shape
 */
export function readInlineBytes(tensor: TensorProto): Uint8Array | undefined {
  const { dtype, place, byteLength, elements } = tensorInfo(tensor);
  if (dtype === 'string' || place === 'external') return undefined;
  if (place === 'raw') return tensor.rawData;
  if (place === 'typed') return readTyped(tensor, dtype, byteLength);
  return elements === 0 ? new Uint8Array() : undefined;
}

/** Where an external tensor's values are; checked, see `externalRange`. */
export const tensorRange = (
  modelPath: string | undefined,
  tensor: TensorProto,
  { dtype, byteLength }: TensorInfo,
): ExternalRange => externalRange(modelPath, tensor, dtypeBits(dtype) ? byteLength : undefined);

/**
 * The values of a tensor as float32; see `decodeFloat32`. May be a view on the model: do not write to
 * it.
 * @throws as `readTensorBytes`, and modelError for complex numbers
 */
export async function readTensorFloat32(model: Model, tensor: TensorProto): Promise<Float32Array> {
  const { dtype, elements } = tensorInfo(tensor);
  const bytes = await readTensorBytes(model, tensor);
  if (dtype === 'float32' && bytes.byteOffset % 4 === 0 && bytes.length === 4 * elements)
    return new Float32Array(bytes.buffer, bytes.byteOffset, elements);
  return decodeFloat32(bytes, dtype, elements);
}

/** The elements of a string tensor, as UTF-8. */
export const tensorStrings = (tensor: TensorProto): string[] =>
  (tensor.stringData ?? []).map((bytes) => Buffer.from(bytes).toString());

/**
 * A tensor with its values in `raw_data`, by reference.
 * @param bytes raw form, as `readTensorBytes` gives and `encodeFloat32` makes it
 */
export function makeTensor({
  name,
  dtype,
  shape,
  bytes,
}: {
  name: string;
  dtype: DType;
  shape: readonly number[];
  bytes: Uint8Array;
}): TensorProto {
  const expected = dtypeByteLength(dtype, elementCount(shape, `tensor "${name}"`));
  if (dtypeBits(dtype) === 0 || bytes.length !== expected)
    throw new Error(`tensor "${name}": ${bytes.length} bytes for ${dtype}[${shape.join(', ')}]`);
  return { dims: [...shape], dataType: dtypeCode(dtype), name, rawData: bytes };
}
