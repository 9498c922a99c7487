import { Tensor } from 'onnxruntime-node';
import { Graph } from '../../src/graph/graph.js';
import { findLinearLayers, type LinearLayer } from '../../src/graph/linear-layers.js';
import {
  type AttributeProto,
  AttributeType,
  type ModelProto,
  type NodeProto,
} from '../../src/onnx/index.js';

/** The node with float attributes added. */
export const withFloats = (node: NodeProto, floats: Record<string, number>): NodeProto => ({
  ...node,
  attribute: [
    ...node.attribute,
    ...Object.entries(floats).map(
      ([name, f]): AttributeProto => ({ name, type: AttributeType.float, f }),
    ),
  ],
});

/** An attribute of a function's node that takes its value from the call. */
export const reference = (name: string, refAttrName: string, type: number): AttributeProto => ({
  name,
  type,
  refAttrName,
});

export const layersOf = (model: ModelProto): LinearLayer[] => findLinearLayers(new Graph(model));

/** Numbers that look random and are the same every time. */
export const noise = (n: number, seed = 1): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453;
    return 2 * (x - Math.floor(x)) - 1;
  });

export const noiseTensor = (dims: number[], seed = 1): Tensor =>
  new Tensor(
    'float32',
    noise(
      dims.reduce((a, b) => a * b, 1),
      seed,
    ),
    dims,
  );
