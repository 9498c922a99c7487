import { modelError } from '../errors.js';
import { dtypeOf, type ModelProto, type TypeProto, type ValueInfoProto } from '../onnx/index.js';

/** An input or output of a model: dynamic dimensions are symbols, `''` where they have none. */
export interface Port {
  name: string;
  /** Element type, or a description of what is not a tensor (`sequence(map(int64, float32))`). */
  dtype: string;
  /** Empty for a scalar, and when the rank is unknown or it is not a tensor. */
  dims: (number | string)[];
}

/** The inputs that a caller must or may feed: without those that an initializer provides. */
export function modelInputs(model: ModelProto): Port[] {
  const stored = new Set(model.graph?.initializer.map((t) => t.name));
  return (model.graph?.input ?? []).filter((v) => !stored.has(v.name)).map(toPort);
}

export const modelOutputs = (model: ModelProto): Port[] => (model.graph?.output ?? []).map(toPort);

/**
 * The output that a loss is of: the first in floating point.
 * @throws {ResectError} exit 5 when there is no output at all
 */
export function floatOutput(model: ModelProto): string {
  const outputs = modelOutputs(model);
  const output = outputs.find(({ dtype }) => /^b?float/.test(dtype)) ?? outputs[0];
  if (output) return output.name;
  throw modelError('The model has no output to compute a loss from.');
}

function toPort({ name = '', type }: ValueInfoProto): Port {
  const dims = type?.tensorType?.shape?.dim.map((d) => d.dimValue ?? d.dimParam ?? '');
  return { name, dtype: describeType(type), dims: dims ?? [] };
}

function describeType(type: TypeProto | undefined): string {
  if (type?.tensorType) return dtypeOf(type.tensorType.elemType);
  if (type?.sparseTensorType) return `sparse(${dtypeOf(type.sparseTensorType.elemType)})`;
  if (type?.sequenceType) return `sequence(${describeType(type.sequenceType.elemType)})`;
  if (type?.mapType)
    return `map(${dtypeOf(type.mapType.keyType)}, ${describeType(type.mapType.valueType)})`;
  if (type?.optionalType) return `optional(${describeType(type.optionalType.elemType)})`;
  return 'unknown';
}
