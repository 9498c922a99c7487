import {
  decodeFloat32,
  isFloat,
  type NodeProto,
  readInlineBytes,
  type TensorProto,
  tensorInfo,
} from '../onnx/index.js';
import { Constants, type ConstantUse } from './constants.js';
import type { Graph, Scope } from './graph.js';
import { opName } from './nodes.js';

/** A stored tensor that training would have learned: a weight, a bias, a scale, an embedding. */
export interface Parameter {
  /** The initializer's name; of a Constant node its output. */
  name: string;
  tensor: TensorProto;
  shape: number[];
  /** The first op that reads it, and as which of its inputs. */
  op: string;
  input: number;
  /** Why it cannot be changed; absent when it can. */
  skip?: string;
}

/**
 * The inputs of an op that hold parameters. Not the running mean and variance of a normalisation, which
 * are statistics and have no gradient in a network that is not being trained.
 */
const parameterInputs: Record<string, readonly number[]> = {
  Conv: [1, 2],
  ConvTranspose: [1, 2],
  DeformConv: [1, 3],
  Gemm: [0, 1, 2],
  MatMul: [0, 1],
  Einsum: [0, 1, 2, 3],
  BatchNormalization: [1, 2],
  InstanceNormalization: [1, 2],
  LayerNormalization: [1, 2],
  GroupNormalization: [1, 2],
  RMSNormalization: [1],
  SimplifiedLayerNormalization: [1],
  PRelu: [1],
  Gather: [0],
  LSTM: [1, 2, 3],
  GRU: [1, 2, 3],
  RNN: [1, 2, 3],
  'com.microsoft.FusedConv': [1, 2],
  'com.microsoft.FusedGemm': [0, 1, 2],
  'com.microsoft.FusedMatMul': [0, 1],
  'com.microsoft.Attention': [1, 2],
  'com.microsoft.MultiHeadAttention': [3],
  'com.microsoft.BiasGelu': [1],
  'com.microsoft.FastGelu': [1],
  'com.microsoft.SkipLayerNormalization': [2, 3, 4],
  'com.microsoft.SkipSimplifiedLayerNormalization': [2, 3],
  'com.microsoft.EmbedLayerNormalization': [2, 3, 4, 5, 6],
};

/** Ops that add or scale: what they read may as well be a mask, a table of angles or a mean of pixels. */
const elementwise = new Set(['Add', 'Sub', 'Mul', 'Div']);

/**
 * The parameters of a model, at every depth, in file order. A tensor that several nodes read is one
 * parameter.
 */
export function findParameters(graph: Graph, constants = new Constants(graph)): Parameter[] {
  const found: Parameter[] = [];
  const taken = new Set<string>();
  for (const scope of graph.scopes) {
    for (const value of scope.values.values()) {
      const view = constants.trace(value);
      if (!view || !('tensor' in view) || view.source !== value) continue;
      const use = constants.uses(view.tensor).find((u) => holdsParameter(graph, u));
      if (!use) continue;
      const { shape } = tensorInfo(view.tensor);
      const base = scope.path ? `${scope.path}/${value.name}` : value.name;
      let name = base;
      for (let n = 2; taken.has(name); n++) name = `${base}#${n}`;
      taken.add(name);
      const skip = problem(view.tensor, use, constants);
      found.push({
        name,
        tensor: view.tensor,
        shape,
        op: opName(use.node),
        input: use.index,
        ...(skip && { skip }),
      });
    }
  }
  return found;
}

function problem(tensor: TensorProto, use: ConstantUse, constants: Constants): string | undefined {
  const { dtype, elements } = tensorInfo(tensor);
  if (use.view.dequantization) return `${dtype} quantized storage`;
  if (!['float32', 'float64', 'float16', 'bfloat16'].includes(dtype)) return `stored as ${dtype}`;
  if (elements === 0) return 'empty';
  if (constants.isOutput(tensor)) return 'an output of the model';
  return undefined;
}

function holdsParameter(graph: Graph, { node, scope, index, view }: ConstantUse): boolean {
  if (!isFloat(view.dtype)) return false;
  const op = opName(node);
  if (Object.hasOwn(parameterInputs, op)) return parameterInputs[op].includes(index);
  const wide = view.axes.filter(({ size }) => size > 1);
  if (op === 'Concat' || op === 'Expand') return index === 0 && wide.length > 0; // a class token
  if (op === 'Slice') return index === 0 && isAdded(scope, node) && !isMask(view.tensor); // positions
  if (!elementwise.has(op) || wide.length === 0) return false;
  // The mean and deviation of pixels, by which a model normalises what it is fed.
  const other = graph.input(scope, node, 1 - index);
  if (other?.isInput) return false;
  if (wide.length === 1) return true;
  return op === 'Add' && !isMask(view.tensor);
}

/** Whether what a node puts out is added to something, as embeddings are, and tables of angles are not. */
const isAdded = (scope: Scope, node: NodeProto): boolean =>
  scope.values.get(node.output[0])?.consumers.some((use) => opName(use.node) === 'Add') ?? false;

/** A mask on attention scores: nothing but zeros and numbers that stand for minus infinity. */
function isMask(tensor: TensorProto): boolean {
  const { dtype, elements } = tensorInfo(tensor);
  const bytes = readInlineBytes(tensor);
  if (!bytes || !isFloat(dtype)) return false;
  const values = decodeFloat32(bytes, dtype, elements);
  return values.every((v) => v === 0 || v === 1 || v <= -1e3);
}
