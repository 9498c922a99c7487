import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { encodeModel, type ModelProto, parseModel } from '../onnx/index.js';
import { withSession } from '../runtime/session.js';

/**
 * The model as ONNX Runtime simplifies it for every platform alike: what is constant is computed,
 * branches with a known condition are taken, shapes are gone where dims are fixed. Only standard ops
 * come out.
 * @param model without large weights: it passes through a temporary file
 */
export async function foldConstants(model: ModelProto): Promise<ModelProto> {
  const folder = await mkdtemp(path.join(tmpdir(), 'resect-'));
  try {
    const file = path.join(folder, 'folded.onnx');
    await withSession(
      encodeModel(model),
      { threads: 1, optimization: 'basic', saveOptimized: file },
      async () => {},
    );
    return parseModel(await readFile(file)).proto;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
