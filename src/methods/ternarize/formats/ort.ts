import { int, makeNode } from '../../../graph/build.js';
import type { WeightLayer } from '../../../graph/weight-layers.js';
import type { Workspace } from '../../../graph/workspace.js';
import type { Model, NodeProto, TensorProto } from '../../../onnx/index.js';
import { gatherAddition, scaledRest, storeBias, without } from './bias.js';
import {
  type ChooseCodes,
  type CodedLayer,
  refuseOffsets,
  replaceLayers,
  type StoredCodes,
  type WriteLayer,
  type WrittenLayer,
} from './layers.js';
import { packCodes, packingOf, trits } from './pack.js';
import { foldFactor, productFactor, productProblem } from './product.js';
import { floatWriter } from './standard.js';
import { TritArchive } from './trit-archive.js';
import { PackedStore, sameNumbers } from './unpack.js';

/** Where MatMulNBits is, and its version. */
export const contrib = { domain: 'com.microsoft', version: 1 };

/** Activations are rounded to int8, block by block: what the fast kernels of ONNX Runtime ask for. */
const int8Activations = 4;

/** Weights per scale that ONNX Runtime has fast kernels for, fastest first. */
const blockSizes = [128, 64, 32];

export interface BlockOptions {
  /** At least. 2 needs ONNX Runtime 1.29 to be fast; before that it knows only 4 and 8. */
  bits: 2 | 4;
  /**
   * Ternary codes are stored five to a byte, and become blocks of 2 bits when the model is loaded. Right
   * but slow where a runtime is told not to fold constants: unpacked in each run.
   */
  pack?: 'trits';
}

/**
 * Packs the codes of MatMul and Gemm into MatMulNBits, which computes with them as they are; biases go
 * into it. Conv, and what MatMulNBits cannot compute, is written as `storePacked` writes it; `reason`
 * says why. The model is edited in memory; it comes to opset 13 and runs in ONNX Runtime only.
 * @returns each layer, in file order
 * @throws {ResectError} exit 5 for ops without an equal in the opset; 2 for codes with offsets
 */
export async function storeBlocks(
  model: Model,
  choose: ChooseCodes,
  options: BlockOptions,
): Promise<StoredCodes[]> {
  const reports = await replaceLayers(model, choose, (workspace) =>
    blockWriter(workspace, options),
  );
  const { proto } = model;
  const imported = proto.opsetImport.some(({ domain }) => domain === contrib.domain);
  if (!imported && reports.some(({ kernel }) => kernel === 'MatMulNBits'))
    proto.opsetImport = [...proto.opsetImport, contrib];
  return reports;
}

/**
 * The weights of a MatMulNBits block: the largest size that no block of which has codes of two groups,
 * and no larger than a row asks for. Undefined when there is none.
 */
export function blockSize({ cols, group, groups }: CodedLayer['codes']): number | undefined {
  if (groups > 1) return blockSizes.find((size) => group % size === 0);
  return blockSizes.findLast((size) => size >= cols) ?? blockSizes[0];
}

function blockWriter(workspace: Workspace, options: BlockOptions): WriteLayer {
  const packed = new PackedStore(workspace);
  const writeFloats = floatWriter(workspace, packed);
  const blocks = new BlockStore(workspace, options);
  return async (layer, ternary) => {
    refuseOffsets(layer, ternary);
    const block = blockSize(ternary.codes);
    const reason =
      productProblem(layer) ??
      (block ? undefined : `groups of ${ternary.codes.group} are not made of blocks of 32`);
    if (reason || !block) {
      const { replaced, report } = await writeFloats(layer, ternary);
      return { replaced, report: { ...report, reason } };
    }
    return writeBlocks(workspace, layer, ternary, { blocks, block });
  };
}

async function writeBlocks(
  workspace: Workspace,
  layer: WeightLayer,
  coded: CodedLayer,
  { blocks, block }: { blocks: BlockStore; block: number },
): Promise<WrittenLayer> {
  const { node } = layer;
  const { codes, bias } = coded;
  const { vector, rest, absorbed, output } = await gatherAddition(workspace, layer, bias);
  const stored = blocks.add(layer, coded, block);
  const inputs = [node.input[0], stored.values.weight, stored.scales];
  if (vector) inputs.push('', '', storeBias(workspace, layer, vector));
  const product = rest ? workspace.names.fresh(`${output}_product`) : output;
  const attributes = [
    int('K', codes.cols),
    int('N', codes.rows),
    int('bits', stored.bits),
    int('block_size', block),
    int('accuracy_level', int8Activations),
  ];
  const made = makeNode('MatMulNBits', inputs, product, attributes, contrib.domain);
  const nodes: NodeProto[] = [...stored.nodes, { ...made, name: node.name || made.name }];
  if (rest) {
    const added = scaledRest(workspace, rest);
    nodes.push(...added.nodes, makeNode('Add', [product, added.value], output));
  }
  return {
    replaced: [[node, nodes], ...without(absorbed)],
    report: { kernel: 'MatMulNBits', bytes: stored.bytes, values: stored.values },
  };
}

/** Weights of MatMulNBits. */
interface Blocks {
  /** What computes them at load; none where they are stored as they are read. */
  nodes: NodeProto[];
  values: { codes: string; weight: string };
  bits: 2 | 4 | 8;
  scales: string;
  bytes: number;
}

/** Stores codes in blocks; equal ones of one tensor once. */
class BlockStore {
  readonly #known = new Map<
    TensorProto,
    (Blocks & { packed: Uint8Array; factors: Float32Array; block: number })[]
  >();
  readonly #archive: TritArchive | undefined;

  constructor(
    readonly workspace: Workspace,
    readonly options: BlockOptions,
  ) {
    if (options.pack) this.#archive = new TritArchive(workspace);
  }

  add(layer: WeightLayer, { codes, bits: own = 2 }: CodedLayer, block: number): Blocks {
    const { rows, cols } = codes;
    const { tensor, source } = layer.weight.view;
    const perRow = Math.ceil(cols / block);
    const shape = { rows, cols, width: perRow * block };
    const archive = own === 2 && !codes.codes.includes(-2) ? this.#archive : undefined;
    const bits = own > this.options.bits ? own : this.options.bits;
    const packed = packCodes(codes.codes, shape, archive ? trits : packingOf[bits]);
    const factors = foldFactor(blockScales(codes, block), productFactor(layer));
    const known = this.#known.get(tensor) ?? [];
    this.#known.set(tensor, known);
    const equal = known.find(
      (k) => k.block === block && sameNumbers(k.packed, packed) && sameNumbers(k.factors, factors),
    );
    if (equal) return { ...equal, nodes: [], bytes: 0 };

    const { workspace } = this;
    const name = tensor.name || source.name;
    const blockBytes = (block * bits) / 8;
    const blocks = [rows, perRow, blockBytes];
    const stored = archive
      ? archive.add(name, packed, blocks)
      : { nodes: [], ...same(workspace.store(`${name}_blocks`, 'uint8', blocks, packed)) };
    // Computed from one scale a row they would cost less, but where ONNX Runtime is told not to fold
    // constants, its kernels with int8 activations leave out scales that are not stored, silently.
    const scales = workspace.storeFloats(`${name}_scales`, factors, [rows, perRow]);
    const made = {
      nodes: stored.nodes,
      values: stored.values,
      bits,
      scales,
      bytes: packed.length + 4 * factors.length,
      packed,
      factors,
      block,
    };
    known.push(made);
    return made;
  }
}

const same = (name: string) => ({ values: { codes: name, weight: name } });

/** A scale for each block, [rows, blocks]. */
function blockScales(
  { rows, cols, group, groups, scales }: CodedLayer['codes'],
  block: number,
): Float32Array {
  const perRow = Math.ceil(cols / block);
  if (groups === perRow) return scales;
  const repeated = new Float32Array(rows * perRow);
  for (let r = 0, k = 0; r < rows; r++)
    for (let b = 0; b < perRow; b++, k++)
      repeated[k] = scales[r * groups + Math.floor((b * block) / group)];
  return repeated;
}
