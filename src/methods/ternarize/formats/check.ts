import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allGraphs, mainGraph } from '../../../graph/bodies.js';
import { intAttribute, opName } from '../../../graph/nodes.js';
import { type ModelProto, type NodeProto, parseModel } from '../../../onnx/index.js';
import { type SessionOptions, withSession } from '../../../runtime/session.js';
import type { Kernel, StoredCodes } from './layers.js';

/** How ONNX Runtime computes a layer. */
export interface LayerKernel {
  name: string;
  /** Whether it is as the format means it to be. */
  fast: boolean;
  /** The ops that read the weight, as far as they can still be told. */
  ops: string[];
  /** Why it is not. */
  reason?: string;
}

/** Blocks of other sizes are unpacked anew in each run. */
const fastBlocks = new Set([32, 64, 128]);

const integerOps = new Set([
  'MatMulInteger',
  'com.microsoft.MatMulIntegerToFloat',
  'com.microsoft.DynamicQuantizeMatMul',
]);

/**
 * Loads a model, reads back the graph that ONNX Runtime made of it, and tells for each changed layer
 * whether its weights are computed with as their format means them to be. The optimised graph is
 * written to a temporary file, with folded weights as floats.
 * @param model a path, or the bytes of a model
 * @throws {ResectError} exit 5 when the runtime refuses the model
 */
export async function checkKernels(
  model: string | Uint8Array,
  layers: readonly StoredCodes[],
  options: Pick<SessionOptions, 'folder' | 'optimization'> = {},
): Promise<LayerKernel[]> {
  const folder = await mkdtemp(join(tmpdir(), 'resect-kernels-'));
  try {
    const saveOptimized = join(folder, 'optimized.onnx');
    await withSession(model, { ...options, threads: 1, saveOptimized }, async () => {});
    // Without a path: weights that it leaves in other files are of no interest.
    const { proto } = parseModel(await readFile(saveOptimized));
    const readers = readersOf(proto);
    return layers.flatMap(({ name, kernel, values }) => {
      if (!kernel || !values) return [];
      const read = readers.get(values.weight) ?? [];
      const unpacking = values.codes === values.weight ? [] : (readers.get(values.codes) ?? []);
      const reason =
        unpacking.length > 0 ? 'its weights are unpacked in each run' : problems[kernel](read);
      return [{ name, fast: !reason, ops: [...new Set(read.map(opName))], reason }];
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function readersOf(proto: ModelProto): Map<string, NodeProto[]> {
  const readers = new Map<string, NodeProto[]>();
  for (const { node } of allGraphs(mainGraph(proto)))
    for (const reader of node)
      for (const name of reader.input) {
        const known = readers.get(name);
        if (known) known.push(reader);
        else readers.set(name, [reader]);
      }
  return readers;
}

/** What is wrong with the nodes that read a weight. */
const problems: Record<Kernel, (readers: NodeProto[]) => string | undefined> = {
  MatMulNBits: (readers) => {
    const other = readers.find((node) => opName(node) !== 'com.microsoft.MatMulNBits');
    if (other || readers.length === 0) return 'it is no MatMulNBits';
    const isSlow = (node: NodeProto) =>
      intAttribute(node, 'accuracy_level', 0) !== 4 ||
      !fastBlocks.has(intAttribute(node, 'block_size', 0));
    return readers.some(isSlow) ? 'its weights become floats in each run' : undefined;
  },
  MatMulInteger: (readers) =>
    readers.length > 0 && readers.every((node) => integerOps.has(opName(node)))
      ? undefined
      : 'it is no product of integers',
  QLinearConv: (readers) =>
    readers.length > 0 && readers.every((node) => node.opType === 'QLinearConv')
      ? undefined
      : 'it is no convolution of integers',
  // Convolutions may read a copy in another layout, with a name of its own.
  float: (readers) =>
    readers.some((node) => opName(node) === 'DequantizeLinear')
      ? 'its weights are dequantized in each run'
      : undefined,
};
