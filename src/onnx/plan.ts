import { modelError } from '../errors.js';
import { encodePieces } from './codec.js';
import { isExternal, rangeBlocks } from './external.js';
import { BLOCK_BYTES } from './io.js';
import { MAX_MODEL_BYTES, type Model } from './model.js';
import { DataLocation, type TensorProto } from './schema.js';
import { readTensorBytes, readTensorPart, tensorInfo, tensorRange } from './tensors.js';
import { writeTyped } from './typed.js';
import { allTensors } from './walk.js';
import type { DeferredBytes, Piece, WritableTensor } from './writer.js';

/** Constants from this length on go to the file with external data, as in ONNX's own tools. */
const MIN_EXTERNAL_BYTES = 1024;
/** Offsets are multiples of the page size; of Windows' allocation granularity where it costs little. */
const PAGE_BYTES = 4096;
const LARGE_PAGE_BYTES = 64 * 1024;
const LARGE_TENSOR_BYTES = 2 ** 20;

/** What goes where when a model is written. */
export interface OutputPlan {
  /** The model file, piece by piece, and its length. */
  pieces: Piece[];
  size: number;
  /** The file with external data: pieces at rising offsets. Empty when there is none to be. */
  weights: { offset: number; bytes: DeferredBytes }[];
}

type Replacements = Map<TensorProto, ReturnType<WritableTensor>>;

/**
 * Lays out the files of a model, edits applied and external weights resolved. Values are read only
 * when the plan is carried out.
 * @param dataFile name of the file for external data
 * @param externalData whether to have one; undefined to leave it to the size of the model
 * @throws modelError when the model file would be too large
 */
export async function planOutput(
  model: Model,
  dataFile: string,
  externalData: boolean | undefined,
): Promise<OutputPlan> {
  const typed = await editedTypedTensors(model);
  const inline = externalData ? undefined : layOut(model, typed);
  if (inline && inline.size <= MAX_MODEL_BYTES) return inline;
  const plan = externalData === false ? undefined : layOut(model, typed, dataFile);
  if (plan && plan.size <= MAX_MODEL_BYTES) return plan;
  throw modelError('the model is too large to be written', {
    expected: `at most ${MAX_MODEL_BYTES} bytes in the model file`,
    got: `${(plan ?? inline)?.size} bytes`,
    hint: plan
      ? 'Store the large tensors in raw form, as initializers, when exporting.'
      : 'Write it with external data.',
  });
}

/**
 * Edited tensors in typed fields keep that form. They are encoded ahead because the length of
 * varints depends on the values.
 */
async function editedTypedTensors(model: Model): Promise<Replacements> {
  const replaced: Replacements = new Map();
  for (const { tensor } of allTensors(model.proto)) {
    if (!model.edits.has(tensor) || replaced.has(tensor)) continue;
    const { dtype, place } = tensorInfo(tensor);
    if (place === 'typed')
      replaced.set(tensor, {
        ...tensor,
        ...writeTyped(await readTensorBytes(model, tensor), dtype),
      });
  }
  return replaced;
}

function layOut(model: Model, typed: Replacements, dataFile?: string): OutputPlan {
  const replaced = new Map(typed);
  const weights: OutputPlan['weights'] = [];
  const offsets = new Map<string, number>();
  let end = 0;

  const moveOut = (tensor: TensorProto, bytes: DeferredBytes, location: string) => {
    const source = sourceOf(model, tensor);
    let offset = offsets.get(source ?? '');
    if (offset === undefined) {
      const page = bytes.length < LARGE_TENSOR_BYTES ? PAGE_BYTES : LARGE_PAGE_BYTES;
      offset = Math.ceil(end / page) * page;
      end = offset + bytes.length;
      weights.push({ offset, bytes });
      if (source) offsets.set(source, offset);
    }
    const entries = { location, offset: String(offset), length: String(bytes.length) };
    return {
      ...tensor,
      rawData: undefined,
      dataLocation: DataLocation.external,
      externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
    };
  };

  for (const { tensor, constant } of allTensors(model.proto)) {
    const external = isExternal(tensor);
    const movable = dataFile !== undefined && (constant || external);
    if (replaced.has(tensor) || !(movable || external || model.edits.has(tensor))) continue;
    const info = tensorInfo(tensor);
    if (info.place !== 'raw' && info.place !== 'external') continue;
    const bytes = { length: info.byteLength, blocks: () => blocksOf(model, tensor) };
    if (movable && bytes.length >= MIN_EXTERNAL_BYTES)
      replaced.set(tensor, moveOut(tensor, bytes, dataFile));
    else if (external || model.edits.has(tensor)) replaced.set(tensor, inlined(tensor, bytes));
  }
  const pieces = encodePieces(model.proto, (tensor) => replaced.get(tensor) ?? tensor);
  return { pieces, size: pieces.reduce((sum, { length }) => sum + length, 0), weights };
}

/** The tensor with its values inside the model. */
function inlined(tensor: TensorProto, rawData: DeferredBytes): ReturnType<WritableTensor> {
  if (!isExternal(tensor)) return { ...tensor, rawData };
  return { ...tensor, rawData, dataLocation: undefined, externalData: undefined };
}

/** What tells tensors that share one external range, unedited: they shall share it again. */
function sourceOf(model: Model, tensor: TensorProto): string | undefined {
  if (!isExternal(tensor) || model.edits.has(tensor)) return undefined;
  const { path, offset, length } = tensorRange(model.path, tensor, tensorInfo(tensor));
  return `${offset}+${length} ${path}`;
}

async function* blocksOf(model: Model, tensor: TensorProto): AsyncGenerator<Uint8Array> {
  const edit = model.edits.get(tensor);
  if (edit?.part) {
    const { byteLength } = tensorInfo(tensor);
    for (let at = 0; at < byteLength; at += BLOCK_BYTES) {
      const length = Math.min(BLOCK_BYTES, byteLength - at);
      yield await edit.part(await readTensorPart(model, tensor, at, length), at);
    }
  } else if (isExternal(tensor) && !edit)
    yield* rangeBlocks(tensorRange(model.path, tensor, tensorInfo(tensor)));
  else yield await readTensorBytes(model, tensor);
}
