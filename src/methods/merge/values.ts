import { type DType, decodeFloat32, encodeFloat32 } from '../../onnx/index.js';

/** Raw bytes as float32; a view on them where that is possible: not to be written to. */
export function toFloats(raw: Uint8Array, dtype: DType, elements: number): Float32Array {
  if (dtype === 'float32' && raw.byteOffset % 4 === 0)
    return new Float32Array(raw.buffer, raw.byteOffset, elements);
  return decodeFloat32(raw, dtype, elements);
}

/** The raw bytes of values that nothing else reads: of float32 a view on them. */
export const toBytes = (values: Float32Array, dtype: DType): Uint8Array =>
  dtype === 'float32'
    ? new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
    : encodeFloat32(values, dtype);
