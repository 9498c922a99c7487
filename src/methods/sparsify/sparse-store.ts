import {
  dtypeBits,
  type Model,
  makeTensor,
  readTensorBytes,
  type SparseTensorProto,
  type TensorProto,
  tensorInfo,
} from '../../onnx/index.js';

/** The IR version that brought sparse initializers. */
const sparseIrVersion = 6;

/** An index takes eight bytes, whatever the element type. */
const indexBytes = 8;

/**
 * Turns pruned initializers of the main graph into sparse initializers: indices and values of what
 * is not zero. The runtime expands them when it loads the model.
 * @param mode `auto` converts only tensors that become smaller
 * @returns notes for the user
 */
export async function storeSparse(
  model: Model,
  tensors: TensorProto[],
  mode: 'sparse' | 'auto',
): Promise<string[]> {
  const { graph } = model.proto;
  if (!graph) return [];
  let converted = 0;
  let saved = 0;
  let elsewhere = 0;
  for (const tensor of tensors) {
    if (
      !graph.initializer.includes(tensor) ||
      !/^float(16|32|64)$/.test(tensorInfo(tensor).dtype)
    ) {
      elsewhere++;
      continue;
    }
    const sparse = toSparse(tensor, await readTensorBytes(model, tensor));
    if (mode === 'auto' && sparse.bytes >= tensorInfo(tensor).byteLength) continue;
    converted++;
    saved += tensorInfo(tensor).byteLength - sparse.bytes;
    graph.initializer = graph.initializer.filter((t) => t !== tensor);
    graph.input = graph.input.filter((v) => v.name !== tensor.name);
    graph.sparseInitializer = [...(graph.sparseInitializer ?? []), sparse.proto];
    model.edits.delete(tensor);
  }
  if (converted > 0) model.proto.irVersion = Math.max(model.proto.irVersion ?? 0, sparseIrVersion);
  return [
    `${converted} of ${tensors.length} pruned tensors stored sparse, ${Math.abs(saved)} bytes ${saved >= 0 ? 'less' : 'more'}`,
    ...(elsewhere > 0
      ? [
          `${elsewhere} pruned tensors stay dense: only floating-point initializers of the main graph can be sparse`,
        ]
      : []),
  ];
}

/** Coordinate form with linear indices: `values [nnz]`, `indices [nnz]` int64, ascending. */
function toSparse(
  tensor: TensorProto,
  raw: Uint8Array,
): { proto: SparseTensorProto; bytes: number } {
  const { name, dtype, shape } = tensorInfo(tensor);
  const size = dtypeBits(dtype) / 8;
  const count = raw.length / size;
  const isZero = (element: number) => {
    // Minus zero counts as a value: nothing but what pruning wrote is dropped.
    for (let b = 0; b < size; b++) if (raw[element * size + b] !== 0) return false;
    return true;
  };
  let kept = 0;
  for (let i = 0; i < count; i++) if (!isZero(i)) kept++;
  const values = new Uint8Array(kept * size);
  const indices = new BigInt64Array(kept);
  for (let i = 0, k = 0; i < count; i++) {
    if (isZero(i)) continue;
    values.set(raw.subarray(i * size, (i + 1) * size), k * size);
    indices[k++] = BigInt(i);
  }
  return {
    bytes: kept * (size + indexBytes),
    proto: {
      values: makeTensor({ name, dtype, shape: [kept], bytes: values }),
      indices: makeTensor({
        name: '',
        dtype: 'int64',
        shape: [kept],
        bytes: new Uint8Array(indices.buffer),
      }),
      dims: shape,
    },
  };
}
