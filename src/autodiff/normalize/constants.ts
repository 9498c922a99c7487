import { modelError } from '../../errors.js';
import { mainGraph } from '../../graph/bodies.js';
import { attribute, isStandard, opName } from '../../graph/nodes.js';
import {
  type AttributeProto,
  encodeFloat32,
  type Int64,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../../onnx/index.js';
import type { Origins } from './origins.js';

/**
 * The model with the Constant nodes of its main graph as initializers, values by reference, and
 * without the inputs that initializers give a default to: in a training copy they are constants.
 * Constants of bodies stay. Strings stay, too: nothing differentiable reads them.
 * @throws {ResectError} exit 5 for a sparse constant
 */
export function liftConstants(model: ModelProto, origins: Origins): ModelProto {
  const graph = mainGraph(model);
  const lifted: TensorProto[] = [];
  const node = graph.node.filter((n) => {
    const tensor = isStandard(n) && n.opType === 'Constant' && constantTensor(n, origins);
    if (tensor) lifted.push(tensor);
    return !tensor;
  });
  const initializer = [...graph.initializer, ...lifted];
  const stored = new Set(initializer.map((t) => t.name));
  const input = graph.input.filter((v) => !stored.has(v.name));
  return { ...model, graph: { ...graph, node, initializer, input } };
}

/** The tensor that a Constant node puts out, under the name of its output. */
function constantTensor(node: NodeProto, origins: Origins): TensorProto | undefined {
  const [name] = node.output;
  const stored = attribute(node, 'value')?.t;
  if (stored) return origins.record({ ...stored, name }, stored);
  if (attribute(node, 'sparse_value'))
    throw modelError('A sparse constant cannot be prepared for gradients.', {
      where: `node ${node.name || name} (${opName(node)})`,
      hint: 'Export the model again with dense weights.',
    });
  for (const a of node.attribute) {
    const tensor = listTensor(a, name);
    if (tensor) return tensor;
  }
  return undefined;
}

/** The value of `value_int` and its kind; undefined for strings. */
function listTensor(a: AttributeProto, name: string): TensorProto | undefined {
  switch (a.name) {
    case 'value_int':
      return int64Tensor(name, [a.i ?? 0], []);
    case 'value_ints':
      return int64Tensor(name, a.ints ?? [], [a.ints?.length ?? 0]);
    case 'value_float':
      return floatTensor(name, [a.f ?? 0], []);
    case 'value_floats':
      return floatTensor(name, a.floats ?? [], [a.floats?.length ?? 0]);
    default:
      return undefined;
  }
}

const floatTensor = (name: string, values: readonly number[], shape: number[]): TensorProto =>
  makeTensor({
    name,
    dtype: 'float32',
    shape,
    bytes: encodeFloat32(Float32Array.from(values), 'float32'),
  });

/** Exact, where a list holds INT64_MAX. */
const int64Tensor = (name: string, values: readonly Int64[], shape: number[]): TensorProto =>
  makeTensor({
    name,
    dtype: 'int64',
    shape,
    bytes: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  });
