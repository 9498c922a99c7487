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
export * from './schema.js';
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
export { encodeModel, serializeModel, writeModel } from './write.js';
