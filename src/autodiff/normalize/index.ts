import { allGraphs, mainGraph, mapTensors } from '../../graph/bodies.js';
import { inlineFunctions } from '../../graph/functions.js';
import { removeDeadNodes } from '../../graph/topology.js';
import {
  allTensors,
  type DType,
  encodeFloat32,
  type GraphProto,
  type Model,
  type ModelProto,
  makeTensor,
  readTensorBytes,
  readTensorFloat32,
  type TensorProto,
  tensorInfo,
} from '../../onnx/index.js';
import { liftConstants } from './constants.js';
import { expandFused } from './fused.js';
import { toFloat32 } from './half.js';
import { hoistBodyConstants } from './hoist.js';
import { upgradeOpset } from './opset.js';
import { Origins } from './origins.js';
import { refuseQuantized } from './quantized.js';
import { findMergedVectors, isEmbedding, type Unshared, unshare } from './unshare.js';

export type { Unshared } from './unshare.js';

/** A training copy of a model. */
export interface Normalized {
  /**
   * Opset 17 or newer, float32 or float64, standard ops; no functions, and no Constant nodes and no
   * inputs with a default in the main graph. Tensors are shared with the user's model where nothing
   * changed. Those that were float16 or bfloat16, and large, have no values until `fillValues`.
   */
  model: ModelProto;
  /**
   * The tensor of the user's model behind each initializer of the main graph, by name: what an edit
   * is keyed by, in its own dtype. Constants that normalisation made are not in it, nor are lists of
   * numbers (`value_floats`), which are no tensors. Names with one origin (a function that is called
   * twice, and `unshared`) are one parameter in the file: sum their gradients.
   */
  origin: Map<string, TensorProto>;
  /**
   * Tensors that several independent parameters share because their values are equal. Each name is a
   * key of `origin`. An edit can give the tensor only one new value: sum the gradients, or store the
   * parameters apart (see `unshare`).
   */
  unshared: Unshared;
  /** From a tensor of `model`, at any depth, to the user's. */
  origins: Origins;
}

/**
 * Prepares a model for the gradient engine. The model is not changed.
 * @throws {ResectError} exit 5 for opsets below 7, quantised models, sparse constants, and fused ops
 *   in a form that has no plain equal; exit 7 when external weights cannot be read
 */
export async function normalize(source: Model): Promise<Normalized> {
  const origins = new Origins();
  const inlined = inlineFunctions(source.proto);
  refuseQuantized(inlined);
  const lifted = uniqueInitializers(liftConstants(hoistBodyConstants(inlined, origins), origins));
  const merged = await findMergedVectors(source, mainGraph(lifted).initializer, origins);
  const { model: apart, unshared } = unshare(
    lifted,
    (tensor, uses) => !merged.has(tensor) || isEmbedding(uses),
    origins,
  );
  const expanded = expandFused(upgradeOpset(toFloat32(apart, origins)));
  const graph = { ...mainGraph(expanded) };
  removeDeadNodes(graph);
  const { irVersion } = expanded;
  const model = { irVersion, opsetImport: usedImports(expanded), graph };

  const stored = new Set([...allTensors(source.proto)].map(({ tensor }) => tensor));
  const origin = new Map<string, TensorProto>();
  for (const tensor of graph.initializer) {
    const original = origins.of(tensor);
    if (stored.has(original)) origin.set(tensor.name ?? '', original);
  }
  for (const [tensor, names] of unshared) {
    const live = names.filter((name) => origin.has(name));
    if (live.length > 1) unshared.set(tensor, live);
    else unshared.delete(tensor);
  }
  return { model, origin, unshared, origins };
}

/** The runtime takes the first of several initializers with one name; so do we, once and for all. */
function uniqueInitializers(model: ModelProto): ModelProto {
  const graph = mainGraph(model);
  const seen = new Set<string>();
  const initializer = graph.initializer.filter(({ name = '' }) => {
    const first = !seen.has(name);
    seen.add(name);
    return first;
  });
  return { ...model, graph: { ...graph, initializer } };
}

function usedImports(model: ModelProto): ModelProto['opsetImport'] {
  const used = new Set<string>(['']);
  for (const { node } of allGraphs(mainGraph(model)))
    for (const { domain } of node) used.add(domain ?? '');
  return model.opsetImport.filter((o) => used.has(o.domain ?? ''));
}

/**
 * The model with the values of every tensor in it: those that are in other files, those that are to
 * be decoded from half precision, and those that `source` has edits for.
 * @param model what `normalize` made, or a part of it
 * @throws {ResectError} as `readTensorBytes`
 */
export async function fillValues(
  model: ModelProto,
  origins: Origins,
  source: Model,
): Promise<ModelProto> {
  const main = mainGraph(model);
  const filled = new Map<TensorProto, TensorProto>();
  for (const tensor of modelTensors(main)) {
    const original = origins.of(tensor);
    const { name, dtype, shape, place, elements } = tensorInfo(tensor);
    const missing = place === 'external' || (place === 'empty' && elements > 0);
    if (!missing && !source.edits.has(original)) continue;
    const bytes = await valueBytes(source, original, dtype);
    filled.set(tensor, makeTensor({ name, dtype, shape, bytes }));
  }
  if (filled.size === 0) return model;
  return { ...model, graph: mapTensors(main, (t) => filled.get(t) ?? t) };
}

/** The values of a tensor in raw form, of the dtype that it was widened to. */
async function valueBytes(source: Model, tensor: TensorProto, dtype: DType): Promise<Uint8Array> {
  return tensorInfo(tensor).dtype === dtype
    ? readTensorBytes(source, tensor)
    : encodeFloat32(await readTensorFloat32(source, tensor), dtype);
}

function* modelTensors(main: GraphProto): Generator<TensorProto> {
  for (const { initializer, node } of allGraphs(main)) {
    yield* initializer;
    for (const { attribute } of node) for (const { t } of attribute) if (t) yield t;
  }
}
