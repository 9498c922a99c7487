import { usageError } from '../../../errors.js';
import { type WeightLayer, weightLayers } from '../../../graph/weight-layers.js';
import { Workspace } from '../../../graph/workspace.js';
import type { Model, NodeProto } from '../../../onnx/index.js';
import type { LayerReport } from '../../method.js';
import { requireOpset } from '../../opset.js';
import type { LayerCodes } from '../maths/codes.js';

/** What stands in a layer's place. */
export interface CodedLayer {
  /** Of the weight as `WeightLayer.weight` has it, [outputs, inputs]. */
  codes: Omit<LayerCodes, 'shared'>;
  /** What the codes span: -2 to 1, -8 to 7 or -128 to 127. Default: 2. */
  bits?: 2 | 4 | 8;
  /** [outputs], added to what the layer puts out. */
  bias?: Float32Array;
}

/** Says what a layer becomes; undefined leaves it as it is. Asked once for each layer, in file order. */
export type ChooseCodes = (
  layer: WeightLayer,
) => CodedLayer | undefined | Promise<CodedLayer | undefined>;

/**
 * What computes a layer's product: MatMulNBits on packed weights, MatMulInteger or what ONNX Runtime
 * fuses it to, QLinearConv from what stands around a Conv, or the float op that it was, on weights that
 * a runtime unpacks once at load.
 */
export type Kernel = 'MatMulNBits' | 'MatMulInteger' | 'QLinearConv' | 'float';

/** What became of a layer. */
export interface StoredCodes extends LayerReport {
  kernel?: Kernel;
  /** Codes and scales as they are stored; 0 where the layer before that shares them counts them. */
  bytes?: number;
  /** Names of the tensor with the packed codes, and of the value that the product reads. */
  values?: { codes: string; weight: string };
}

/** A layer's replacement: nodes in place of nodes, and what to report of it. */
export interface WrittenLayer {
  replaced: [NodeProto, NodeProto[]][];
  report: Pick<StoredCodes, 'kernel' | 'bytes' | 'values' | 'reason'>;
}

export type WriteLayer = (layer: WeightLayer, ternary: CodedLayer) => Promise<WrittenLayer>;

/**
 * Brings the model to opset 13 and replaces its layers, in memory.
 * @param writer makes what writes a layer
 * @returns each layer, in file order, and then those that cannot be treated
 * @throws {ResectError} exit 5 for ops without an equal in the opset; what `choose` throws
 */
export async function replaceLayers(
  model: Model,
  choose: ChooseCodes,
  writer: (workspace: Workspace) => WriteLayer,
): Promise<StoredCodes[]> {
  requireOpset(model, 13);
  const workspace = new Workspace(model);
  const { layers, skipped } = weightLayers(workspace);
  const write = writer(workspace);
  const reports: StoredCodes[] = [];
  const replaced = new Map<NodeProto, NodeProto[]>();
  for (const layer of layers) {
    const { name, op, shape } = layer;
    const reason = refusal(layer);
    const ternary = reason ? undefined : await choose(layer);
    if (!ternary) {
      reports.push({ name, op, shape, status: reason ? 'skipped' : 'unchanged', reason });
      continue;
    }
    checkSizes(layer, ternary);
    const written = await write(layer, ternary);
    for (const [node, nodes] of written.replaced) replaced.set(node, nodes);
    reports.push({ name, op, shape, status: 'changed', ...written.report });
  }
  workspace.commit(workspace.graph.node.flatMap((node) => replaced.get(node) ?? [node]));
  return [...reports, ...skipped];
}

function refusal({ op, weight }: WeightLayer): string | undefined {
  if (op === 'ConvTranspose') return 'transposed convolution';
  const { dtype } = weight.view;
  return dtype === 'float32' ? undefined : `computes in ${dtype}`;
}

function checkSizes({ name, weight }: WeightLayer, { codes, bias }: CodedLayer): void {
  const { rows, cols, group, groups } = codes;
  const fits =
    rows === weight.rows &&
    cols === weight.cols &&
    groups === Math.ceil(cols / group) &&
    codes.codes.length === rows * cols &&
    codes.scales.length === rows * groups &&
    (!bias || bias.length === rows);
  if (!fits) throw new Error(`codes, scales or bias of ${name} do not fit its weight`);
}

/** @throws {ResectError} exit 2 when codes have offsets, which no packed format has room for */
export function refuseOffsets({ name }: WeightLayer, { codes }: CodedLayer): void {
  if (!codes.offsets) return;
  throw usageError('Asymmetric codes cannot be packed.', {
    where: `layer ${name}`,
    expected: 'codes without offsets',
    hint: 'Choose a symmetric quantizer, or keep weights as floats.',
  });
}
