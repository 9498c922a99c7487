import { type NodeProto, tensorInfo } from '../../onnx/index.js';
import { Constants, isView } from '../constants.js';
import type { Graph } from '../graph.js';
import { intAttribute, opName } from '../nodes.js';
import type { Shapes } from './analysis.js';

/** What a layer costs: a node that multiplies by a weight, or two activations. */
export interface LayerCost {
  /** The node's name, or that of its first output. */
  name: string;
  node: NodeProto;
  op: string;
  /** Multiply-accumulates of a run at these shapes, whole batch; absent where a shape is not known. */
  macs?: number;
  /** Stored bytes of weight and bias. A tensor that several layers read counts for each of them. */
  bytes: number;
}

/**
 * The cost of each Conv, ConvTranspose, Gemm and MatMul of the main graph, in file order. Padding is
 * counted as if it were multiplied, as is usual.
 * @param shapes of values, for inputs of one size
 */
export function layerCosts(graph: Graph, shapes: Shapes): LayerCost[] {
  const constants = new Constants(graph);
  const stored = (node: NodeProto, index: number) => {
    const value = graph.input(graph.root, node, index);
    const traced = value && constants.trace(value);
    return isView(traced) ? traced : undefined;
  };
  const dims = (node: NodeProto, index: number) =>
    stored(node, index)?.axes.map(({ size }) => size) ?? shapes.get(node.input[index])?.dims;

  return graph.root.graph.node.flatMap((node) => {
    const op = opName(node);
    const output = shapes.get(node.output[0])?.dims;
    const macs = multiplications(node, op, dims(node, 0), dims(node, 1), output);
    if (macs === 'none') return [];
    const bytes = node.input.reduce((sum, _, i) => {
      const view = stored(node, i);
      return sum + (view ? tensorInfo(view.tensor).byteLength : 0);
    }, 0);
    const name = node.name || node.output[0];
    return [{ name, node, op, bytes, ...(macs !== undefined && { macs }) }];
  });
}

type Dims = readonly number[] | undefined;

const product = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1);

/** Undefined where a shape is not known; `none` for ops that are no layers. */
function multiplications(
  node: NodeProto,
  op: string,
  x: Dims,
  w: Dims,
  y: Dims,
): number | undefined | 'none' {
  switch (op) {
    case 'Conv':
      return y && w && product(y) * product(w.slice(1));
    case 'ConvTranspose':
      return x && w && product(x) * product(w.slice(1));
    case 'Gemm':
      return y && x && product(y) * x[intAttribute(node, 'transA', 0) === 0 ? 1 : 0];
    case 'MatMul':
      return y && x && product(y) * (x.at(-1) ?? 1);
    default:
      return 'none';
  }
}
