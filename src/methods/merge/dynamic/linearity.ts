import { opName } from '../../../graph/nodes.js';
import type { NodeProto } from '../../../onnx/index.js';

/** Ops that are linear in their first input alone, whatever the others are. */
const ofFirst = new Set(
  `Identity Cast Transpose Reshape Squeeze Unsqueeze Flatten Slice Split Expand Tile Gather GatherND
  GatherElements Pad DepthToSpace SpaceToDepth Neg Div ReduceSum ReduceMean AveragePool
  GlobalAveragePool CumSum Trilu EyeLike`.split(/\s+/),
);

/** Ops that are linear in all their inputs taken together. */
const ofAll = new Set(['Add', 'Sub', 'Sum', 'Mean', 'Concat']);

/** Ops that are linear in these inputs taken together, the others held fast. */
const together: Record<string, readonly number[][]> = {
  Conv: [
    [1, 2],
    [0, 2],
  ],
  ConvTranspose: [
    [1, 2],
    [0, 2],
  ],
  DeformConv: [[1, 3]],
  Gemm: [
    [1, 2],
    [0, 2],
  ],
  MatMul: [[0], [1]],
  Mul: [[0], [1]],
  Where: [[1, 2]],
  PRelu: [[1]],
  LayerNormalization: [[1, 2]],
  InstanceNormalization: [[1, 2]],
  GroupNormalization: [[1, 2]],
  RMSNormalization: [[1]],
  SimplifiedLayerNormalization: [[1]],
};

/**
 * Whether the results of a node are linear in the values at these inputs, taken together, so that of
 * blended values it makes the blend of their results.
 */
export function isLinear(node: NodeProto, inputs: readonly number[]): boolean {
  const op = opName(node);
  if (ofAll.has(op)) return true;
  if (ofFirst.has(op)) return inputs.every((i) => i === 0);
  if (op === 'Einsum') return inputs.length === 1;
  return (
    Object.hasOwn(together, op) &&
    together[op].some((group) => inputs.every((i) => group.includes(i)))
  );
}
