import { mainGraph, mapBodies, mapTensors } from '../../graph/bodies.js';
import { isStandard } from '../../graph/nodes.js';
import {
  type AttributeProto,
  decodeFloat32,
  dtypeCode,
  dtypeOf,
  encodeFloat32,
  type GraphProto,
  type ModelProto,
  makeTensor,
  type NodeProto,
  readInlineBytes,
  type TensorProto,
  type TypeProto,
  tensorInfo,
  type ValueInfoProto,
} from '../../onnx/index.js';
import type { Origins } from './origins.js';

/** Tensors of up to this many elements are decoded at once: arguments of ops, which rules look at. */
const small = 1024;

const float32 = dtypeCode('float32');

const isHalf = (code: number): boolean => {
  const dtype = dtypeOf(code);
  return dtype === 'float16' || dtype === 'bfloat16';
};

const widened = (code: number | undefined): number | undefined =>
  code !== undefined && isHalf(code) ? float32 : code;

/**
 * The model in float32 where it was in float16 or bfloat16: tensors, casts, declared types, inputs
 * and outputs, in bodies too. On a CPU nearly every half kernel is a float32 kernel between casts.
 *
 * A large tensor is replaced by a stand-in without values, known to `origins`; `fillValues` decodes
 * those that are still there when the model is to run.
 */
export function toFloat32(model: ModelProto, origins: Origins): ModelProto {
  const main = mainGraph(model);
  const widen = (tensor: TensorProto): TensorProto =>
    isHalf(tensor.dataType ?? 0) ? origins.record(widenTensor(tensor), tensor) : tensor;
  return { ...model, graph: widenTypes(mapTensors(main, widen)) };
}

function widenTensor(tensor: TensorProto): TensorProto {
  const { name, dtype, shape, elements } = tensorInfo(tensor);
  const bytes = elements <= small ? readInlineBytes(tensor) : undefined;
  if (!bytes) return { name, dims: shape, dataType: float32 };
  const values = decodeFloat32(bytes, dtype, elements);
  return makeTensor({ name, dtype: 'float32', shape, bytes: encodeFloat32(values, 'float32') });
}

/** Everything but tensors. */
const widenTypes = (graph: GraphProto): GraphProto => ({
  ...graph,
  input: graph.input.map(widenValue),
  output: graph.output.map(widenValue),
  valueInfo: graph.valueInfo.map(widenValue),
  node: graph.node.map((node) => widenNode(mapBodies(node, widenTypes))),
});

const widenValue = (value: ValueInfoProto): ValueInfoProto =>
  value.type ? { ...value, type: widenType(value.type) } : value;

function widenType(type: TypeProto): TypeProto {
  const { tensorType, sequenceType, optionalType } = type;
  return {
    ...type,
    ...(tensorType && { tensorType: { ...tensorType, elemType: widened(tensorType.elemType) } }),
    ...(sequenceType?.elemType && { sequenceType: { elemType: widenType(sequenceType.elemType) } }),
    ...(optionalType?.elemType && { optionalType: { elemType: widenType(optionalType.elemType) } }),
  };
}

/** Attributes of standard ops that hold an element type. */
const typeAttributes = new Set([
  'to',
  'dtype',
  'output_datatype',
  'stash_type',
  'softmax_precision',
]);

function widenNode(node: NodeProto): NodeProto {
  const isType = ({ name, i, tp }: AttributeProto) =>
    tp !== undefined ||
    (isStandard(node) && typeAttributes.has(name ?? '') && isHalf(Number(i ?? 0)));
  if (!node.attribute.some(isType)) return node;
  const attribute = node.attribute.map((a) => {
    if (!isType(a)) return a;
    return a.tp ? { ...a, tp: widenType(a.tp) } : { ...a, i: float32 };
  });
  return { ...node, attribute };
}
