import {
  type AttributeProto,
  AttributeType,
  type GraphProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../onnx/index.js';

/** A node, named after its first output. */
export const makeNode = (
  opType: string,
  input: readonly string[],
  output: string | readonly string[],
  attribute: AttributeProto[] = [],
  domain = '',
): NodeProto => {
  const outputs = typeof output === 'string' ? [output] : [...output];
  return {
    name: `${outputs[0]}:${opType}`,
    opType,
    input: [...input],
    output: outputs,
    attribute,
    ...(domain && { domain }),
  };
};

export const emptyGraph = (name: string): GraphProto => ({
  name,
  node: [],
  initializer: [],
  input: [],
  output: [],
  valueInfo: [],
});

export const int = (name: string, i: number): AttributeProto => ({
  name,
  type: AttributeType.int,
  i,
});

export const ints = (name: string, values: readonly number[]): AttributeProto => ({
  name,
  type: AttributeType.ints,
  ints: [...values],
});

export const float = (name: string, f: number): AttributeProto => ({
  name,
  type: AttributeType.float,
  f,
});

export const string = (name: string, text: string): AttributeProto => ({
  name,
  type: AttributeType.string,
  s: Buffer.from(text),
});

export const tensor = (name: string, t: TensorProto): AttributeProto => ({
  name,
  type: AttributeType.tensor,
  t,
});

export const branch = (name: string, g: GraphProto): AttributeProto => ({
  name,
  type: AttributeType.graph,
  g,
});

/** The type of a tensor value, of unknown shape unless `dims` are given. */
export const tensorType = (elemType: number, dims?: readonly number[]) => ({
  tensorType: {
    elemType,
    ...(dims && { shape: { dim: dims.map((dimValue) => ({ dimValue })) } }),
  },
});

/** A one-dimensional int64 tensor. */
export const int64Tensor = (values: readonly number[], name = ''): TensorProto =>
  makeTensor({
    name,
    dtype: 'int64',
    shape: [values.length],
    bytes: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  });
