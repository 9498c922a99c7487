export {
  DTYPES,
  type DType,
  dtypeBits,
  dtypeByteLength,
  dtypeCode,
  dtypeOf,
  isFloat,
} from './dtypes.js';
export { MAX_MODEL_BYTES, Model, parseModel, readModel, type TensorEdit } from './model.js';
export {
  type AttributeProto,
  AttributeType,
  DataLocation,
  type DeviceConfigurationProto,
  type DimensionProto,
  type FunctionProto,
  type GraphProto,
  type Int64,
  type IntIntListEntryProto,
  type MapTypeProto,
  type ModelProto,
  type NodeDeviceConfigurationProto,
  type NodeProto,
  type OpaqueTypeProto,
  type OperatorSetIdProto,
  type OptionalTypeProto,
  type SegmentProto,
  type SequenceTypeProto,
  type ShardedDimProto,
  type ShardingSpecProto,
  type SimpleShardedDimProto,
  type SparseTensorProto,
  type StringStringEntryProto,
  type TensorAnnotation,
  type TensorProto,
  type TensorShapeProto,
  type TensorTypeProto,
  type TrainingInfoProto,
  type TypeProto,
  type ValueInfoProto,
} from './schema.js';
export {
  makeTensor,
  readInlineBytes,
  readTensorBytes,
  readTensorFloat32,
  type TensorInfo,
  tensorInfo,
  tensorStrings,
} from './tensors.js';
export { decode, decodeFloat32, encodeFloat32, type TypedArray } from './values.js';
export { allTensors } from './walk.js';
export { checkOutput, encodeModel, serializeModel, writeModel } from './write.js';
