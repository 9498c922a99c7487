import { isFloat, type Model, type NodeProto, tensorInfo } from '../onnx/index.js';
import { isView } from './constants.js';
import { findLinearLayers } from './linear-layers.js';
import { intAttribute, isStandard, opName } from './nodes.js';
import type { WeightMatrix } from './weight-matrix.js';
import { Workspace } from './workspace.js';

/** A Conv, ConvTranspose, Gemm or MatMul of the main graph whose second input is a stored weight. */
export interface WeightLayer {
  /** As `findLinearLayers` names it. */
  name: string;
  op: string;
  node: NodeProto;
  /** Shape of the weight as the node reads it. */
  shape: number[];
  /** The axis of that shape with a scale for each entry: output channels, where one axis has them. */
  axis: number;
  /** The weight with a row for each entry of `axis`, the other axes in their order. */
  weight: WeightMatrix;
}

/** A layer that is none of these. */
export interface SkippedLayer {
  name: string;
  op: string;
  /** [out, in], where its weight can be seen. */
  shape?: number[];
  status: 'skipped';
  reason: string;
}

export interface FoundLayers {
  layers: WeightLayer[];
  /** Layers that cannot be treated, with the reason. */
  skipped: SkippedLayer[];
}

const weightRank: Record<string, (rank: number) => boolean> = {
  Conv: (rank) => rank >= 3,
  ConvTranspose: (rank) => rank >= 3,
  Gemm: (rank) => rank === 2,
  MatMul: (rank) => rank === 2,
};

/** The layers with a weight that a format can store, in file order, and those that have none such. */
export function weightLayers(workspace: Workspace): FoundLayers {
  const found: FoundLayers = { layers: [], skipped: [] };
  const { view, constants } = workspace;
  for (const { name, node, scope, op, weight } of findLinearLayers(view, constants)) {
    const skip = (reason: string) => {
      const shape = weight && [weight.rows, weight.cols];
      found.skipped.push({ name, op, ...(shape && { shape }), status: 'skipped', reason });
    };
    if (scope !== view.root) skip('in the body of a control-flow node');
    else if (!isStandard(node) || !Object.hasOwn(weightRank, op)) skip(`${opName(node)} weight`);
    else {
      const layer = readLayer(workspace, name, node);
      if (typeof layer === 'string') skip(layer);
      else found.layers.push(layer);
    }
  }
  return found;
}

/**
 * Gives nodes, in place, the names of their layers, which else depend on what else is in the graph.
 * @returns the names, in file order
 */
export function nameLayers(model: Model): string[] {
  const workspace = new Workspace(model);
  const names = new Map(weightLayers(workspace).layers.map(({ node, name }) => [node, name]));
  workspace.commit(
    workspace.graph.node.map((node) => ({ ...node, name: names.get(node) ?? node.name })),
  );
  return [...names.values()];
}

/** The layer, or why it is none. */
function readLayer(workspace: Workspace, name: string, node: NodeProto): WeightLayer | string {
  const value = workspace.input(node, 1);
  const view = value && workspace.constants.trace(value);
  if (!isView(view)) return view ? `weight ${view.reason}` : 'weight is not the second input';
  if (workspace.isOverridable(view)) return 'weight is an input with a default';
  const shape = view.axes.map(({ size }) => size);
  const op = node.opType ?? '';
  if (!weightRank[op](shape.length)) return `weight of rank ${shape.length}`;
  const { dtype, elements } = tensorInfo(view.tensor);
  if (!isFloat(dtype)) return `${dtype} weight`;
  if (elements === 0) return 'empty weight';
  const axis = scaleAxis(node, shape);
  const weight: WeightMatrix = {
    view,
    rows: shape[axis],
    cols: elements / shape[axis],
    outAxes: [view.axes[axis]],
    inAxes: view.axes.filter((_, i) => i !== axis),
    groups: 1,
  };
  return { name, op, node, shape, axis, weight };
}

/** Where the output channels are. */
function scaleAxis(node: NodeProto, [inputs, outputs]: number[]): number {
  switch (node.opType) {
    case 'Gemm':
      return intAttribute(node, 'transB', 0) ? 0 : 1;
    case 'MatMul':
      return 1;
    case 'ConvTranspose':
      // [in, out/group, …]: groups share their scales, but for a depthwise one, whose channels are the first axis.
      return outputs === 1 && intAttribute(node, 'group', 1) === inputs ? 0 : 1;
    default:
      return 0;
  }
}
