import { createHash } from 'node:crypto';
import { modelError, ResectError } from '../errors.js';
import { decodeModel } from './codec.js';
import { isExternal, rangeBlocks } from './external.js';
import { openFile, readFully } from './io.js';
import type { ModelProto, TensorProto } from './schema.js';
import { sniffFormat } from './sniff.js';
import { tensorInfo, tensorRange } from './tensors.js';
import { allTensors } from './walk.js';

/** What protobuf can hold in one message; larger models keep their weights in another file. */
export const MAX_MODEL_BYTES = 2 ** 31 - 1;

/**
 * New values for a tensor. Gets its raw bytes (see `readTensorBytes`; not to be written to) and
 * returns others of the same dtype and shape.
 */
export type TensorEdit = ((raw: Uint8Array) => Uint8Array | Promise<Uint8Array>) & {
  /**
   * The same for a part of the tensor that starts `offset` bytes into it, where new values depend on
   * nothing but what is in their place. With it a tensor is written piece by piece.
   */
  part?: (raw: Uint8Array, offset: number) => Promise<Uint8Array>;
};

/** A model as it was read. `proto` may be changed at will; the files stay as they are. */
export class Model {
  /** Changes of values, applied whenever a tensor is read or written, so that they take no memory. */
  readonly edits = new Map<TensorProto, TensorEdit>();
  readonly #source: Uint8Array;
  readonly #weights: ReadonlyMap<string, number>;

  /**
   * @param source the bytes that `proto` was decoded from
   * @param path the file that they were read from; external weights are found beside it
   * @param weights files with external weights, and their sizes
   */
  constructor(
    readonly proto: ModelProto,
    source: Uint8Array = new Uint8Array(),
    readonly path?: string,
    weights: ReadonlyMap<string, number> = new Map(),
  ) {
    this.#source = source;
    this.#weights = weights;
  }

  /** Bytes on disk as it was read: the model file and the files with external weights, each once. */
  get sizeBytes(): number {
    return [...this.#weights.values()].reduce((sum, size) => sum + size, this.#source.length);
  }

  /** Paths of the files with external weights, as it was read, in order of name. */
  externalFiles(): string[] {
    return [...this.#weights.keys()].sort();
  }

  /** Where in the model file the raw bytes of a tensor begin; undefined when they are not from it. */
  rawOffset({ rawData }: TensorProto): number | undefined {
    const { buffer, byteOffset, length } = this.#source;
    if (!rawData?.length || rawData.buffer !== buffer) return undefined;
    const offset = rawData.byteOffset - byteOffset;
    return offset >= 0 && offset + rawData.length <= length ? offset : undefined;
  }

  /** SHA-256, in hex, of the model file followed by the files with external weights in order of name. */
  async hash(): Promise<string> {
    const hash = createHash('sha256').update(this.#source);
    for (const path of this.externalFiles()) {
      const range = { path, offset: 0, length: this.#weights.get(path) ?? 0 };
      for await (const block of rangeBlocks(range)) hash.update(block);
    }
    return hash.digest('hex');
  }
}

/**
 * Decodes a model. Tensors are views on `bytes`, which must not change afterwards.
 * @param path the file that the bytes are from: where external weights are looked for, and named in
 *   errors. Without it they are not checked, and cannot be read.
 * @throws modelError when the bytes are no ONNX model, or a range of external weights is wrong;
 *   ioError when external weights are missing or their location is unsafe
 */
export function parseModel(bytes: Uint8Array, path?: string): Model {
  const where = path ?? 'model';
  if (bytes.length === 0)
    throw modelError('the model is empty', {
      where,
      expected: 'an ONNX model',
      got: '0 bytes',
      hint: 'Download or export it again.',
    });
  const proto = decode(bytes, where);
  return new Model(proto, bytes, path, path === undefined ? undefined : checkWeights(proto, path));
}

function decode(bytes: Uint8Array, where: string): ModelProto {
  try {
    const proto = decodeModel(bytes);
    if (proto.graph) return proto;
    throw modelError('the model has no graph', {
      where,
      hint: 'Check that it is an ONNX model; if so, download or export it again.',
    });
  } catch (error) {
    if (!(error instanceof ResectError)) throw error;
    const format = sniffFormat(bytes);
    if (format)
      throw modelError('the file is not an ONNX model', {
        where,
        expected: 'an ONNX model (protobuf)',
        got: format.name,
        hint: format.hint,
      });
    const { detail } = error;
    const place = detail.where && detail.where !== where ? `${where}: ${detail.where}` : where;
    throw modelError(error.message, { ...detail, where: place });
  }
}

/** The files with external weights of a model, and their sizes; all checked, none opened. */
function checkWeights(proto: ModelProto, path: string): Map<string, number> {
  const weights = new Map<string, number>();
  for (const { tensor } of allTensors(proto)) {
    if (!isExternal(tensor)) continue;
    const range = tensorRange(path, tensor, tensorInfo(tensor));
    weights.set(range.path, range.fileSize);
  }
  return weights;
}

/**
 * Reads a model file of up to 2 GiB and checks where its external weights are, without reading them.
 * @throws ioError when the file is missing, unreadable or not a regular file; and as `parseModel`
 */
export async function readModel(path: string): Promise<Model> {
  const { file, size } = await openFile(path);
  try {
    if (size > MAX_MODEL_BYTES)
      throw modelError('the file is too large for an ONNX model', {
        where: path,
        expected: `at most ${MAX_MODEL_BYTES} bytes; larger models keep their weights in another file`,
        got: `${size} bytes`,
        hint: 'Give the .onnx file itself, or export it with external data.',
      });
    const bytes = new Uint8Array(size);
    await readFully(file, path, 0, bytes);
    return parseModel(bytes, path);
  } finally {
    await file.close();
  }
}
