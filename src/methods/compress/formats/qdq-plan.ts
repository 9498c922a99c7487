import { topologicalOrder } from '../../../graph/topology.js';
import type { WeightLayer } from '../../../graph/weight-layers.js';
import type { Workspace } from '../../../graph/workspace.js';
import type { NodeProto } from '../../../onnx/index.js';
import { type ActivationRanges, intersect, type Range } from './activation-ranges.js';
import { cutBehind, dataInputs, integerKind, isPlainProduct } from './integer-ops.js';

/** A node that computes in integers. */
export interface IntegerNode {
  node: NodeProto;
  layer?: WeightLayer;
  /** The value it puts out: of the Relu or Clip behind it, if it does that too. */
  output: string;
  /** What the codes that it puts out span; absent when it puts out floats, or moves those of its input. */
  range?: Range;
  cut?: NodeProto;
}

export interface IntegerPlan {
  nodes: Map<NodeProto, IntegerNode>;
  /** Why a layer that was to be integer is not. */
  reasons: Map<WeightLayer, string>;
  /** Of a value that integer nodes read: what its codes span, wherever they were moved from. */
  rangeOf(name: string): Range | undefined;
}

/**
 * Which nodes can compute in integers: layers whose input has a range, and between them the sums,
 * Concats and poolings whose inputs are all integers.
 * @param layers those that are to be
 */
export async function planIntegers(
  workspace: Workspace,
  layers: readonly WeightLayer[],
  ranges: ActivationRanges,
): Promise<IntegerPlan> {
  const { view } = workspace;
  const nodes = new Map<NodeProto, IntegerNode>();
  const reasons = new Map<WeightLayer, string>();
  const wanted = wantedValues(workspace, new Set(layers.map(({ node }) => node)));
  /** Integer nodes by the value that they put out as integers. */
  const integers = new Map<string, IntegerNode | undefined>();
  const rangeOf = (name: string): Range | undefined => {
    const source = integers.get(name);
    if (source?.range) return source.range;
    const known = source ? undefined : ranges.get(name);
    if (known) return known;
    const producer = view.root.values.get(name)?.producer;
    return producer && integerKind(producer) === 'moved' ? rangeOf(producer.input[0]) : undefined;
  };
  /** The output with the Relu or Clip behind it, if there is one. */
  const outcome = async (node: NodeProto) => {
    const cut = await cutBehind(workspace, workspace.output(node));
    const output = cut ? cut.node.output[0] : node.output[0];
    const known = ranges.get(output) ?? (cut && ranges.get(node.output[0]));
    const range = known && (cut ? intersect(known, cut.range) : known);
    return { output, range, ...(cut && { cut: cut.node }) };
  };

  const add = (planned: IntegerNode) => {
    nodes.set(planned.node, planned);
    integers.set(planned.output, planned);
  };

  for (const layer of layers) {
    const { node } = layer;
    const reason = floatReason(workspace, layer, rangeOf(node.input[0]));
    const { output, range, cut } = await outcome(node);
    const asFloat = node.opType !== 'Conv' && (!wanted(output) || !range);
    if (reason) reasons.set(layer, reason);
    else if (!range && !asFloat) reasons.set(layer, `no range of ${output} is known`);
    else {
      if (!integers.has(node.input[0])) integers.set(node.input[0], undefined);
      if (asFloat) nodes.set(node, { node, layer, output: node.output[0] });
      else add({ node, layer, output, range, cut });
    }
  }
  for (const node of topologicalOrder(workspace.graph)) {
    const kind = integerKind(node);
    if (!kind || kind === 'weighted' || nodes.has(node)) continue;
    if (!dataInputs(node).every((i) => integers.has(node.input[i]))) continue;
    if (kind === 'moved') {
      if (wanted(node.output[0])) add({ node, output: node.output[0] });
      continue;
    }
    const { output, range, cut } = await outcome(node);
    const reached = range ?? (kind === 'pooled' && !cut ? rangeOf(node.input[0]) : undefined);
    if (reached) add({ node, output, range: reached, cut });
  }
  return { nodes, reasons, rangeOf };
}

/** Why a layer computes in floats, before its output is looked at. */
function floatReason(
  workspace: Workspace,
  { node, weight }: WeightLayer,
  range: Range | undefined,
): string | undefined {
  if (integerKind(node) !== 'weighted') return `no integer kernel for ${node.opType}`;
  if (!isPlainProduct(node)) return 'Gemm with alpha, beta or transA';
  if (node.input[2] && !hasStoredBias(workspace, node, weight.rows))
    return 'bias is no stored vector';
  return range ? undefined : `no range of ${node.input[0]} is known`;
}

/** Whether the third input is a stored tensor with a value for each channel, or one for all. */
function hasStoredBias(workspace: Workspace, node: NodeProto, channels: number): boolean {
  const bias = workspace.constant(node, 2);
  if (!bias) return false;
  const sizes = bias.axes.map(({ size }) => size);
  const elements = sizes.reduce((a, b) => a * b, 1);
  return elements === 1 || (elements === channels && sizes.at(-1) === channels);
}

/** Says of a value whether something behind it may compute with it in integers. */
function wantedValues(
  workspace: Workspace,
  layers: ReadonlySet<NodeProto>,
): (name: string) => boolean {
  const known = new Map<string, boolean>();
  const isWanted = (node: NodeProto, index: number): boolean => {
    switch (integerKind(node)) {
      case 'weighted':
        return layers.has(node) && index === 0;
      case 'joined':
        return node.input.every((_, i) => !workspace.constant(node, i));
      case 'pooled':
        return true;
      case 'moved':
        return index === 0 && known.get(node.output[0]) === true;
      default:
        return false;
    }
  };
  // From the end, so that what moves codes knows whether its output is wanted.
  for (const node of topologicalOrder(workspace.graph).reverse()) {
    const consumers = workspace.output(node)?.consumers ?? [];
    known.set(
      node.output[0],
      consumers.some((use) => use.scope === workspace.view.root && isWanted(use.node, use.index)),
    );
  }
  return (name) => known.get(name) ?? false;
}
