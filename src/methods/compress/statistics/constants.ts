import { type Constants, type ConstantView, isView } from '../../../graph/constants.js';
import type { Graph } from '../../../graph/graph.js';
import { type Model, type NodeProto, readTensorFloat32 } from '../../../onnx/index.js';

/** A constant as its reader sees it, row-major. */
export interface ConstantArray {
  dims: number[];
  values: Float64Array;
}

/** The constant behind input `index` of a node of the main graph; undefined when there is none. */
export function constantView(
  graph: Graph,
  constants: Constants,
  node: NodeProto,
  index: number,
): ConstantView | undefined {
  const value = graph.input(graph.root, node, index);
  const view = value && constants.trace(value);
  return isView(view) && !view.dequantization ? view : undefined;
}

/** Values by way of float32, exact for float32 and anything narrower. */
export async function readView(
  model: Model,
  { tensor, axes }: ConstantView,
): Promise<ConstantArray> {
  const stored = await readTensorFloat32(model, tensor);
  const dims = axes.map(({ size }) => size);
  const values = new Float64Array(dims.reduce((a, b) => a * b, 1));
  const inner = axes.at(-1) ?? { size: 1, stride: 1 };
  const at = new Uint32Array(axes.length);
  for (let k = 0; k < values.length; ) {
    let offset = 0;
    for (let axis = 0; axis < axes.length - 1; axis++) offset += at[axis] * axes[axis].stride;
    for (let i = 0; i < inner.size; i++) values[k++] = stored[offset + i * inner.stride];
    for (let axis = axes.length - 2; axis >= 0 && ++at[axis] === axes[axis].size; axis--) {
      at[axis] = 0;
    }
  }
  return { dims, values };
}
