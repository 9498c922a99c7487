/** Ops that ONNX Runtime has integer kernels for, and what reads and writes integers around them. */
import type { Value } from '../../../graph/graph.js';
import { attribute, floatAttribute, intAttribute, isStandard } from '../../../graph/nodes.js';
import type { Workspace } from '../../../graph/workspace.js';
import { type NodeProto, readTensorFloat32 } from '../../../onnx/index.js';
import type { Range } from './activation-ranges.js';

/** How an op works on integers: `weighted` times a weight, `joined` all inputs alike, `moved` codes unchanged. */
export type IntegerKind = 'weighted' | 'joined' | 'pooled' | 'moved';

const kinds: Record<string, IntegerKind> = {
  Conv: 'weighted',
  Gemm: 'weighted',
  MatMul: 'weighted',
  Add: 'joined',
  Mul: 'joined',
  Concat: 'joined',
  AveragePool: 'pooled',
  GlobalAveragePool: 'pooled',
  MaxPool: 'moved',
  Flatten: 'moved',
  Reshape: 'moved',
  Transpose: 'moved',
  Squeeze: 'moved',
  Unsqueeze: 'moved',
};

export const integerKind = (node: NodeProto): IntegerKind | undefined =>
  isStandard(node) && Object.hasOwn(kinds, node.opType ?? '') && !hasMoreOutputs(node)
    ? kinds[node.opType ?? '']
    : undefined;

const hasMoreOutputs = ({ output }: NodeProto): boolean => output.slice(1).some(Boolean);

/** The activations among the inputs of an integer op. */
export const dataInputs = (node: NodeProto): number[] =>
  integerKind(node) === 'joined' ? node.input.map((_, i) => i) : [0];

/** Whether an integer kernel computes what the node says; `alpha` and `beta` would need other scales. */
export function isPlainProduct(node: NodeProto): boolean {
  if (node.opType !== 'Gemm') return true;
  const beta = node.input[2] ? floatAttribute(node, 'beta', 1) : 1;
  return floatAttribute(node, 'alpha', 1) === 1 && beta === 1 && !intAttribute(node, 'transA', 0);
}

/** A Relu or Clip that a quantizer does by the way, because it saturates where they cut. */
export interface Cut {
  node: NodeProto;
  /** What is left; holds 0. */
  range: Range;
}

/** The Relu or Clip that alone reads a value, if its bounds are stored and 0 lies between them. */
export async function cutBehind(
  workspace: Workspace,
  value: Value | undefined,
): Promise<Cut | undefined> {
  const node = workspace.onlyReader(value);
  if (!node || !isStandard(node) || node.input[0] !== value?.name) return undefined;
  if (node.opType === 'Relu') return { node, range: { min: 0, max: Infinity } };
  if (node.opType !== 'Clip') return undefined;
  const bound = async (name: string, index: number, open: number) => {
    if (!node.input[index]) return attribute(node, name)?.f ?? open;
    const view = workspace.constant(node, index);
    return view ? (await readTensorFloat32(workspace.model, view.tensor))[0] : Number.NaN;
  };
  const range = { min: await bound('min', 1, -Infinity), max: await bound('max', 2, Infinity) };
  return range.min <= 0 && range.max >= 0 ? { node, range } : undefined;
}

/** Values of the main graph whose ranges an integer graph may ask for, in file order. */
export function rangedValues(workspace: Workspace): string[] {
  const names = new Set<string>();
  const add = (value: Value | undefined) => {
    const activation =
      value && value.scope === workspace.view.root && !workspace.constants.trace(value);
    const normalised = workspace.onlyReader(value)?.opType === 'BatchNormalization';
    if (activation && !normalised) names.add(value.name);
  };
  for (const node of workspace.graph.node) {
    const isCut = isStandard(node) && /^(Relu|Clip|BatchNormalization)$/.test(node.opType ?? '');
    if (!isCut && !integerKind(node)) continue;
    if (!isCut) for (const index of dataInputs(node)) add(workspace.input(node, index));
    add(workspace.output(node));
  }
  return [...names];
}
