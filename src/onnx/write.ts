import { statSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import nodePath from 'node:path';
import { ioError } from '../errors.js';
import { checkTarget, writeAtomically } from './atomic.js';
import { encodePieces } from './codec.js';
import { writeFully } from './io.js';
import type { Model } from './model.js';
import { planOutput } from './plan.js';
import type { ModelProto, TensorProto } from './schema.js';
import type { Piece } from './writer.js';

/**
 * Encodes a model in memory, as for a session of a runtime. External tensors stay references, and
 * edits are not known here: `serializeModel` resolves both.
 * @param replace what to write in place of a tensor
 */
export function encodeModel(
  proto: ModelProto,
  replace?: (tensor: TensorProto) => TensorProto,
): Uint8Array {
  const pieces = encodePieces(proto, replace).filter((piece) => piece instanceof Uint8Array);
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let position = 0;
  for (const piece of pieces) {
    bytes.set(piece, position);
    position += piece.length;
  }
  return bytes;
}

/**
 * The bytes of the model as `writeModel` writes it into one file: edits applied, external weights
 * inside.
 * @throws modelError when that is more than 2 GiB; and as `readTensorBytes`
 */
export async function serializeModel(model: Model): Promise<Uint8Array> {
  const { pieces, size } = await planOutput(model, '', false);
  const bytes = new Uint8Array(size);
  let position = 0;
  for (const piece of pieces)
    for await (const block of blocksOf(piece)) {
      bytes.set(block, position);
      position += block.length;
    }
  return bytes;
}

/**
 * Writes a model with its edits applied: whole or not at all, never over its own input.
 *
 * A model that fits into one protobuf message (2 GiB) becomes one file, with weights that were
 * external inside. A larger one, or any with `externalData`, keeps its constants of 1 KiB or more
 * (initializers and `Constant` nodes) in a fresh file beside it, named after it with `.data` added,
 * each tensor at a multiple of 4096 bytes, or of 64 KiB from 1 MiB on, as memory mapping asks for.
 * Values are streamed: at no time is more than one tensor in memory beyond what the model holds.
 * @param options.force replace existing files
 * @param options.externalData true and false ask for one or the other form whatever the size
 * @param options.check looks at the finished model before it appears, under a temporary path, with
 *   its weights beside it; when it says false, nothing is left
 * @returns bytes on disk, and the files: the model first; undefined when `check` said false
 * @throws ioError when the output exists, is one of the model's own files, or cannot be written;
 *   modelError when it does not fit the form; and as `readTensorBytes`
 */
export async function writeModel(
  model: Model,
  outPath: string,
  options: {
    force?: boolean;
    externalData?: boolean;
    check?: (staged: string) => Promise<boolean>;
  } = {},
): Promise<{ bytes: number; files: string[] } | undefined> {
  const { force = false, externalData, check } = options;
  const dataPath = `${outPath}.data`;
  checkOutput(model, outPath, { force });

  const plan = await planOutput(model, nodePath.basename(dataPath), externalData);
  const last = plan.weights.at(-1);
  // The model comes last, so that it never points to weights that are not there.
  const targets = last ? [dataPath, outPath] : [outPath];
  const fill = async (files: FileHandle[]) => {
    if (last)
      for (const { offset, bytes } of plan.weights)
        await writePiece(files[0], dataPath, bytes, offset);
    let position = 0;
    for (const piece of plan.pieces) {
      await writePiece(files[files.length - 1], outPath, piece, position);
      position += piece.length;
    }
  };
  const published = await writeAtomically(targets, force, fill, async (staged) =>
    check ? check(staged[staged.length - 1]) : true,
  );
  if (!published) return undefined;
  return {
    bytes: plan.size + (last ? last.offset + last.bytes.length : 0),
    files: targets.reverse(),
  };
}

/**
 * Refuses an output before any work is done for it.
 * @param others further files that the operation reads
 * @throws ioError when it exists and `force` is not set, or is a file that the operation reads, under
 *   whatever name
 */
export function checkOutput(
  model: Model,
  outPath: string,
  { force = false, others = [] }: { force?: boolean; others?: readonly string[] },
): void {
  const inputs = [...(model.path === undefined ? [] : [model.path]), ...model.externalFiles()];
  refuseInput([...inputs, ...others], [outPath, `${outPath}.data`]);
  checkTarget(outPath, force);
}

function refuseInput(inputs: readonly string[], targets: readonly string[]): void {
  const known = new Map(inputs.map((path) => [fileId(path), path]));
  known.delete(undefined);
  for (const target of targets) {
    const input = known.get(fileId(target));
    if (input !== undefined)
      throw ioError(`cannot write ${target}: it is the input itself`, {
        where: target,
        got: `the same file as ${input}`,
        hint: 'Choose another name for the output; inputs are never changed.',
      });
  }
}

/** What two names of one file have in common; undefined where there is none. */
function fileId(path: string): string | undefined {
  try {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    return stats && `${stats.dev}:${stats.ino}`;
  } catch {
    return undefined; // a link loop, a file for a folder: no input can be read through it
  }
}

async function writePiece(
  file: FileHandle,
  path: string,
  piece: Piece,
  position: number,
): Promise<void> {
  let done = 0;
  for await (const block of blocksOf(piece)) {
    await writeFully(file, path, block, position + done);
    done += block.length;
  }
  if (done !== piece.length) throw new Error(`${done} bytes came for a piece of ${piece.length}`);
}

/** A piece as blocks, whatever it is. */
const blocksOf = (piece: Piece): Iterable<Uint8Array> | AsyncIterable<Uint8Array> =>
  piece instanceof Uint8Array ? [piece] : piece.blocks();
