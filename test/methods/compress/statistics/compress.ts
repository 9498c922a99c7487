import { outputAffine } from '../../../../src/methods/compress/maths/batch-norm.js';
import { eliminate, importance } from '../../../../src/methods/compress/maths/elimination.js';
import type { Filters } from '../../../../src/methods/compress/maths/gaussian-conv.js';
import { compressedStep } from '../../../../src/methods/compress/maths/gaussian-step.js';
import { type AxisView, mixAxis, range } from '../../../../src/methods/compress/maths/mixing.js';
import type { Signal } from '../../../../src/methods/compress/maths/moments.js';
import { outputShift, reconstruct } from '../../../../src/methods/compress/maths/reconstruct.js';
import { keptCount } from '../../../../src/methods/compress/maths/select.js';
import { keptRows, storedWeights } from '../../../../src/methods/compress/statistics/layers.js';
import type {
  LayerVisit,
  PropagateOptions,
} from '../../../../src/methods/compress/statistics/propagate.js';
import { Model } from '../../../../src/onnx/index.js';
import { floats } from '../../../support/protos.js';
import { walk } from './support.js';

/** [outputs, inputs/groups, taps] */
function view({ weights, outputs, inputs, groups }: Filters): AxisView {
  const channels = inputs / groups;
  return { outer: outputs, channels, inner: weights.length / (outputs * channels) };
}

/** Values by the names of initializers. */
export type Tensors = Map<string, { dims: number[]; values: Float64Array }>;

/** The signal that a consumer is rewritten by; `sofar` is what became of the layers in front of it. */
export type Inspect = (visit: LayerVisit, sofar: Tensors) => Signal | Promise<Signal>;

const carried: Inspect = ({ input }) => input;

/**
 * Prunes a fraction of the outputs of some layers, named by their weights, each read by the next layer
 * only; in two walks, as an application does: the first selects, the second rewrites.
 */
export async function prune(
  source: Model,
  prunable: readonly string[],
  ratio: number,
  options: Partial<PropagateOptions> = {},
  inspect = carried,
): Promise<Tensors> {
  const kept = new Map<string, Uint32Array>();
  let before = '';
  await walk(source, {
    ...options,
    onLayer: ({ node, layer: { filters, norm }, input: { original } }) => {
      if (prunable.includes(before)) {
        const scale = norm && outputAffine(filters.outputs, norm).scale;
        const q = importance(filters.weights, view(filters), scale, filters.groups);
        const seen = { covariance: original.covariance, importance: q };
        const keep = keptCount(filters.inputs, { ratio });
        kept.set(before, eliminate(filters.inputs, [seen], { keep })!.kept);
      }
      before = node.input[1];
      return undefined;
    },
  });
  const tensors: Tensors = new Map();
  await walk(source, {
    ...options,
    onLayer: async (visit) => {
      const { layer, inputKept, step, node } = visit;
      const { filters } = layer;
      const keep = kept.get(node.input[1]) ?? range(filters.outputs);
      let rewritten = filters.weights;
      let shift: Float64Array | undefined;
      if (inputKept) {
        const { original, compressed } = await inspect(visit, tensors);
        const { s, delta } = reconstruct(original, inputKept, compressed);
        rewritten = mixAxis(filters.weights, view(filters), s, inputKept.length);
        shift = outputShift(filters.weights, view(filters), delta).filter((_, i) =>
          keep.includes(i),
        );
      }
      const inputs = inputKept?.length ?? filters.inputs;
      const rows = keptRows({ ...filters, weights: rewritten }, keep, inputs);
      const change = { filters: rows, kept: keep, ...(shift && { shift }) };
      const { norm, bias, preActivation } = compressedStep(visit.input, layer, step, change);
      tensors.set(node.input[1], storedWeights(visit.storage, rows));
      const vector = (name: string, values: Float64Array) =>
        tensors.set(name, { dims: [keep.length], values });
      if (visit.bias && bias) vector(visit.bias.node.input[visit.bias.input], bias);
      if (visit.norm && norm) {
        const [, gamma, beta, mean, variance] = visit.norm.input;
        vector(gamma, norm.gamma);
        vector(beta, norm.beta);
        vector(mean, norm.mean);
        vector(variance, norm.variance);
      }
      return { kept: keep, preActivation };
    },
  });
  return tensors;
}

/** The model with other values, of other shapes, in its initializers. */
export function withTensors(source: Model, tensors: Tensors): Model {
  const graph = source.proto.graph!;
  const initializer = graph.initializer.map((tensor) => {
    const changed = tensors.get(tensor.name!);
    return changed ? floats(tensor.name!, changed.dims, Float32Array.from(changed.values)) : tensor;
  });
  return new Model({ ...source.proto, graph: { ...graph, initializer } });
}
