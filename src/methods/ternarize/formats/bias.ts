import { makeNode } from '../../../graph/build.js';
import { floatAttribute, isStandard } from '../../../graph/nodes.js';
import type { WeightLayer } from '../../../graph/weight-layers.js';
import type { Workspace } from '../../../graph/workspace.js';
import {
  type AttributeProto,
  type NodeProto,
  readTensorFloat32,
  tensorInfo,
} from '../../../onnx/index.js';

/** All that is added to a layer's product. */
export interface Addition {
  /** [outputs] the sum of what is stored; absent when nothing is. */
  vector?: Float32Array;
  /** A further value, of the layer's third input, that is no stored vector; and the factor on it. */
  rest?: { value: string; beta: number };
  /** The Add behind a MatMul that the vector contains. */
  absorbed?: NodeProto;
  /** The name of the sum. */
  output: string;
}

/**
 * Gathers what is added to a layer's product: the bias of a Conv or Gemm, or that of an Add with a
 * stored vector [outputs] if it alone reads a MatMul, and `extra` [outputs]. Summed in float64 and
 * rounded once.
 */
export async function gatherAddition(
  workspace: Workspace,
  layer: WeightLayer,
  extra?: Float32Array,
): Promise<Addition> {
  const { node, op, weight } = layer;
  const total = Float64Array.from(extra ?? new Float32Array(weight.rows));
  const sum = (values: Float32Array, factor: number) => {
    for (let i = 0; i < total.length; i++) total[i] += factor * values[values.length === 1 ? 0 : i];
    return Float32Array.from(total);
  };
  const output = node.output[0];
  if (op === 'MatMul') {
    const add = workspace.onlyReader(workspace.output(node));
    const stored = add && isStandard(add) && add.opType === 'Add';
    const bias = stored
      ? await vector(workspace, layer, add, add.input[0] === output ? 1 : 0)
      : undefined;
    return add && bias
      ? { vector: sum(bias, 1), absorbed: add, output: add.output[0] }
      : { vector: extra, output };
  }
  if (!node.input[2]) return { vector: extra, output };
  const beta = op === 'Gemm' ? floatAttribute(node, 'beta', 1) : 1;
  const bias = await vector(workspace, layer, node, 2);
  return bias
    ? { vector: sum(bias, beta), output }
    : { vector: extra, rest: { value: node.input[2], beta }, output };
}

/** An input that adds a stored number to each output, or one number to all of a Gemm's. */
async function vector(
  workspace: Workspace,
  { op, weight }: WeightLayer,
  node: NodeProto,
  index: number,
): Promise<Float32Array | undefined> {
  const view = workspace.constant(node, index);
  if (view?.dtype !== 'float32' || view.dequantization) return undefined;
  const sizes = view.axes.map(({ size }) => size);
  const { elements } = tensorInfo(view.tensor);
  // A MatMul's output may have one axis, and Add would give it more: only vectors are safe there.
  const fits =
    op === 'Gemm'
      ? elements === 1 || (elements === weight.rows && sizes.at(-1) === elements)
      : sizes.length === 1 && elements === weight.rows;
  return fits ? readTensorFloat32(workspace.model, view.tensor) : undefined;
}

/** The further value of an addition times its factor, and the nodes that compute it. */
export function scaledRest(
  workspace: Workspace,
  { value, beta }: NonNullable<Addition['rest']>,
): { value: string; nodes: NodeProto[] } {
  if (beta === 1) return { value, nodes: [] };
  const factor = workspace.storeFloats(`${value}_beta`, Float32Array.of(beta), []);
  const scaled = workspace.names.fresh(`${value}_scaled`);
  return { value: scaled, nodes: [makeNode('Mul', [value, factor], scaled)] };
}

/** Stores what is to be added to a layer's outputs; returns its name. */
export const storeBias = (
  workspace: Workspace,
  { node }: WeightLayer,
  values: Float32Array,
): string => workspace.storeFloats(`${node.output[0]}_bias`, values, [values.length]);

/** A node that goes, if there is one, in the form of `WrittenLayer.replaced`. */
export const without = (node?: NodeProto): [NodeProto, NodeProto[]][] => (node ? [[node, []]] : []);

/**
 * The layer's own op with another weight and other attributes, and `extra` [outputs] added to what it
 * puts out: in its bias, or in an Add behind a MatMul.
 * @returns nodes in place of nodes
 */
export async function keepOp(
  workspace: Workspace,
  layer: WeightLayer,
  change: { weight: string; attribute?: AttributeProto[] },
  extra?: Float32Array,
): Promise<[NodeProto, NodeProto[]][]> {
  const { node, op } = layer;
  const { weight, attribute = node.attribute } = change;
  const kept = {
    ...node,
    attribute,
    input: node.input.map((read, i) => (i === 1 ? weight : read)),
  };
  if (!extra) return [[node, [kept]]];

  const {
    vector: bias = extra,
    rest,
    absorbed,
    output,
  } = await gatherAddition(workspace, layer, extra);
  const stored = storeBias(workspace, layer, bias);
  if (op === 'MatMul') {
    const product = workspace.names.fresh(`${output}_product`);
    const add = makeNode('Add', [product, stored], output);
    const nodes = [{ ...kept, output: [product] }, add];
    return [[node, nodes], ...without(absorbed)];
  }
  const biased = (value: string): NodeProto => ({
    ...kept,
    input: [...kept.input.slice(0, 2), value],
    attribute: attribute.filter(({ name }) => name !== 'beta'),
  });
  if (!rest) return [[node, [biased(stored)]]];
  const { value, nodes } = scaledRest(workspace, rest);
  const sum = workspace.names.fresh(`${output}_bias_sum`);
  return [[node, [...nodes, makeNode('Add', [value, stored], sum), biased(sum)]]];
}
