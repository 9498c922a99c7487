import path from 'node:path';
import {
  allTensors,
  DataLocation,
  encodeModel,
  type Model,
  type ModelProto,
  readTensorBytes,
  type TensorProto,
} from '../onnx/index.js';

/** Initializers from this size on are left in the model's own file, for the runtime to map. */
const worthMapping = 4096;

/**
 * The bytes of `proto`, a part or a variant of `model` that shares its tensors, for a session. Edited
 * tensors are written with their new values. Other large initializers are not copied: they become
 * references into the file that the model was read from. Pass `folder` on to the session.
 */
export async function openPart(
  model: Model,
  proto: ModelProto,
): Promise<{ bytes: Uint8Array; folder?: string }> {
  const edited = new Map<TensorProto, TensorProto>();
  const mapped = new Set<TensorProto>(proto.graph?.initializer);
  for (const { tensor } of allTensors(proto)) {
    if (!model.edits.has(tensor)) continue;
    const { dims, dataType, name } = tensor;
    edited.set(tensor, { dims, dataType, name, rawData: await readTensorBytes(model, tensor) });
  }
  const file = model.path && path.basename(model.path);
  const bytes = encodeModel(proto, (tensor) => {
    const replaced = edited.get(tensor);
    if (replaced) return replaced;
    const offset = file && mapped.has(tensor) ? model.rawOffset(tensor) : undefined;
    const length = tensor.rawData?.length ?? 0;
    if (offset === undefined || length < worthMapping) return tensor;
    const { dims, dataType, name } = tensor;
    return {
      dims,
      dataType,
      name,
      dataLocation: DataLocation.external,
      externalData: [
        { key: 'location', value: file },
        { key: 'offset', value: String(offset) },
        { key: 'length', value: String(length) },
      ],
    };
  });
  return { bytes, folder: model.path && path.dirname(path.resolve(model.path)) };
}
