import {
  type AttributeProto,
  AttributeType,
  type DType,
  dtypeCode,
  encodeModel,
  type GraphProto,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from '../../src/onnx/index.js';

/** Short ways to write down small models, right or wrong: nothing is checked here. */

type AttributeValue = number | string | number[] | TensorProto | GraphProto;

export const node = (
  opType: string,
  input: string[],
  output: string[],
  attributes: Record<string, AttributeValue> = {},
  more: Partial<NodeProto> = {},
): NodeProto => ({
  opType,
  input,
  output,
  attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
  ...more,
});

function attribute(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === 'number') return { name, type: AttributeType.int, i: value };
  if (typeof value === 'string')
    return { name, type: AttributeType.string, s: new TextEncoder().encode(value) };
  if (Array.isArray(value)) return { name, type: AttributeType.ints, ints: value };
  if ('node' in value) return { name, type: AttributeType.graph, g: value };
  return { name, type: AttributeType.tensor, t: value };
}

/** Values between -0.5 and 0.5, no two equal. */
export function weight(name: string, shape: number[]): TensorProto {
  const elements = shape.reduce((a, b) => a * b, 1);
  return floats(
    name,
    shape,
    Float32Array.from({ length: elements }, (_, i) => ((i * 0.6180339887) % 1) - 0.5),
  );
}

export const floats = (name: string, shape: number[], values: Float32Array): TensorProto =>
  makeTensor({
    name,
    dtype: 'float32',
    shape,
    bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
  });

export const ints = (name: string, ...values: number[]): TensorProto =>
  makeTensor({
    name,
    dtype: 'int64',
    shape: [values.length],
    bytes: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  });

export const value = (
  name: string,
  dims: (number | string)[],
  dtype: DType = 'float32',
): ValueInfoProto => ({
  name,
  type: {
    tensorType: {
      elemType: dtypeCode(dtype),
      shape: {
        dim: dims.map((dim) => (typeof dim === 'number' ? { dimValue: dim } : { dimParam: dim })),
      },
    },
  },
});

export const graph = (parts: Partial<GraphProto>): GraphProto => ({
  name: 'graph',
  node: [],
  initializer: [],
  input: [],
  output: [],
  valueInfo: [],
  ...parts,
});

export const model = (parts: Partial<GraphProto>, more: Partial<ModelProto> = {}): ModelProto => ({
  irVersion: 8,
  opsetImport: [{ version: 17 }],
  graph: graph(parts),
  ...more,
});

/** `y [batch, 4] = x [batch, 8] w`, with any part replaced. */
export const linear = (
  parts: Partial<GraphProto> = {},
  more: Partial<ModelProto> = {},
): Uint8Array =>
  encodeModel(
    model(
      {
        node: [node('MatMul', ['x', 'w'], ['y'], {}, { name: 'multiply' })],
        initializer: [weight('w', [8, 4])],
        input: [value('x', ['batch', 8])],
        output: [value('y', ['batch', 4])],
        ...parts,
      },
      more,
    ),
  );
