import type { InputSpec } from '../data/index.js';
import { modelError } from '../errors.js';
import { tensorType } from '../graph/build.js';
import { inlineFunctions } from '../graph/functions.js';
import { Graph } from '../graph/graph.js';
import { floatOutput, modelInputs } from '../graph/interface.js';
import { findParameters, type Parameter } from '../graph/parameters.js';
import {
  decode,
  dtypeCode,
  type GraphProto,
  type Model,
  type ModelProto,
  readTensorBytes,
  readTensorFloat32,
  type TensorProto,
  tensorInfo,
} from '../onnx/index.js';
import type { Feeds } from '../runtime/session.js';
import { fillValues, normalize } from './normalize/index.js';
import type { Floats } from './optimizer.js';

/** A parameter that is differentiated by, and the training copy's initializers that stand for it. */
export interface Trained extends Parameter {
  /** More than one where exporters merged equal parameters: see `unshare`. */
  copies: string[];
}

/** A copy of a model whose parameters are inputs, so that nothing folds them and they may change. */
export interface TrainingCopy {
  proto: ModelProto;
  trained: Trained[];
  /** By parameter name. */
  values: Map<string, Floats>;
  /** Values of the inputs that hold parameters, trained or frozen; those of `values` are shared. */
  weights: Feeds;
  /** The inputs of the model itself. */
  inputs: InputSpec[];
  /** The first output that is floating point. */
  output: string;
}

/**
 * @param wants which parameters to differentiate by
 * @throws {ResectError} exit 5 as `normalize`, and when no parameter is left or there is no output
 */
export async function trainingCopy(
  source: Model,
  wants: (parameter: Parameter) => boolean = () => true,
): Promise<TrainingCopy> {
  const found = findParameters(new Graph(inlineFunctions(source.proto)));
  const normalized = await normalize(source);
  const names = new Map<TensorProto, string[]>();
  for (const [name, tensor] of normalized.origin)
    names.set(tensor, [...(names.get(tensor) ?? []), name]);

  const graph = normalized.model.graph as GraphProto;
  const stored = new Map(graph.initializer.map((t) => [t.name ?? '', t]));
  const values = new Map<string, Floats>();
  const weights: Feeds = {};
  const trained: Trained[] = [];
  const taken = new Set<string>();
  for (const parameter of found) {
    const copies = names.get(parameter.tensor) ?? [];
    if (copies.length === 0 || parameter.skip) continue;
    const { dtype, shape } = tensorInfo(stored.get(copies[0]) as TensorProto);
    const data = await readParameter(source, parameter.tensor);
    for (const copy of copies) {
      weights[copy] = { dtype: dtype === 'float64' ? dtype : 'float32', dims: shape, data };
      taken.add(copy);
    }
    if (!wants(parameter)) continue;
    values.set(parameter.name, data);
    trained.push({ ...parameter, copies });
  }
  if (trained.length === 0) {
    throw modelError('The model has no parameter to differentiate by.', {
      got: found.length ? `${found.length} parameters, none of them chosen` : 'no parameters',
      hint: 'Check --include and --exclude against what `resect inspect` lists.',
    });
  }
  const withInputs: ModelProto = {
    ...normalized.model,
    graph: {
      ...graph,
      initializer: graph.initializer.filter((t) => !taken.has(t.name ?? '')),
      input: [
        ...graph.input,
        ...Object.entries(weights).map(([name, { dtype, dims }]) => ({
          name,
          type: tensorType(dtypeCode(dtype), dims),
        })),
      ],
    },
  };
  return {
    proto: await fillValues(withInputs, normalized.origins, source),
    trained,
    values,
    weights,
    inputs: modelInputs(source.proto),
    output: floatOutput(source.proto),
  };
}

/** A copy of a parameter's values, which may be written to: float64 where it is that, else float32. */
export async function readParameter(model: Model, tensor: TensorProto): Promise<Floats> {
  const { dtype, elements } = tensorInfo(tensor);
  if (dtype !== 'float64') return Float32Array.from(await readTensorFloat32(model, tensor));
  return Float64Array.from(decode(await readTensorBytes(model, tensor), dtype, elements), Number);
}

/**
 * The model for inputs of one shape.
 * @param kept values that the runtime must not simplify away
 */
export function withDims(model: ModelProto, feeds: Feeds, kept: readonly string[]): ModelProto {
  const graph = model.graph as GraphProto;
  const input = graph.input.map((value) => {
    const fed = feeds[value.name ?? ''];
    const elemType = value.type?.tensorType?.elemType;
    return fed && elemType ? { ...value, type: tensorType(elemType, fed.dims) } : value;
  });
  // Declared shapes are symbols that no longer hold.
  const names = new Set([...graph.output.map(({ name = '' }) => name), ...kept]);
  const output = [...names].map((name) => ({ name }));
  return { ...model, graph: { ...graph, input, valueInfo: [], output } };
}
