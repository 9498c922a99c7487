/** What becomes of every layer when channels go and weights are rounded: the second walk. */
import { floatAttribute } from '../../graph/nodes.js';
import type { NodeProto } from '../../onnx/index.js';
import { FilterTrace, scaleMixing, weightMixing } from './filters-behind.js';
import type { OutputMoments } from './formats/batch-norm-ranges.js';
import type { Filters } from './maths/gaussian-conv.js';
import { compressedStep, outputMean } from './maths/gaussian-step.js';
import { dropMatrix, mixAxis, range } from './maths/mixing.js';
import { type Moments, type Signal, unchanged } from './maths/moments.js';
import { reconstruct } from './maths/reconstruct.js';
import type { Mixing } from './maths/udfc.js';
import type { KeptPositions, Network } from './network.js';
import type { CompressParameters } from './parameters.js';
import { type RoundedFilters, type Rounding, roundFilters } from './rounding.js';
import { keptRows, storedWeights } from './statistics/layers.js';
import { type LayerVisit, type PropagateOptions, propagate } from './statistics/propagate.js';
import { droppedMoments } from './statistics/signals.js';
import type { ParameterValue } from './write-parameters.js';

/** A layer that was rewritten. */
export interface RewrittenLayer {
  node: NodeProto;
  /** The value that has its bias and BatchNormalization in it, and the channels that are left of it. */
  output: string;
  kept: Uint32Array;
  parameters: ParameterValue[];
  bits?: number;
  /** Of its stored weight, where it was rounded: one for each output channel, or a single one. */
  scales?: Float64Array;
  condition?: number;
  ridge?: number;
  /** Σ E(u - ũ)² / Σ E u² over its outputs that are left. */
  predictedError: number;
  /** Of the outputs that are left. */
  moments: OutputMoments;
}

export interface RewriteOptions {
  given: CompressParameters;
  positions: KeptPositions;
  rounding: (layer: LayerVisit) => Rounding | undefined;
  statistics: Omit<PropagateOptions, 'onLayer' | 'shapes'>;
  /** Signals as they are measured in both networks, the second being as far as `done` says. */
  measure?: (visit: LayerVisit, kept: number, done: readonly RewrittenLayer[]) => Promise<Signal>;
  progress: (done: number) => void;
}

/**
 * Rewrites layers in topological order: the input axis of what reads a tensor that lost channels takes
 * up what is missing, weights are rounded, and biases and BatchNormalizations make up for the mean.
 * @returns the layers that are not as they were
 */
export async function rewriteLayers(
  network: Network,
  options: RewriteOptions,
): Promise<RewrittenLayer[]> {
  const done: RewrittenLayer[] = [];
  const trace = new FilterTrace(network);
  let visits = 0;
  await propagate(network.model, network.graph, {
    ...options.statistics,
    shapes: network.shapes,
    onLayer: async (visit) => {
      options.progress(++visits);
      const rounding = options.rounding(visit);
      remember(trace, visit, options.given, rounding);
      const kept = keptOf(visit, options.positions);
      if (!kept.inputs && !kept.outputs && !rounding && !visit.input.compressed) return undefined;
      const signal = await signalOf(visit, kept.inputs, options, done);
      const { layer, moments } = rewrite(visit, signal, kept, rounding, trace, options.given);
      done.push(layer);
      return { kept: layer.kept, preActivation: moments };
    },
  });
  return done;
}

interface KeptChannels {
  inputs?: Uint32Array;
  outputs?: Uint32Array;
}

function keptOf(
  { node, layer: { filters }, depthwise }: LayerVisit,
  positions: KeptPositions,
): KeptChannels {
  const inputs = positions.inputs(node.input[0], filters.inputs);
  if (!depthwise) return { inputs, outputs: positions.outputs(node) };
  const each = filters.outputs / filters.inputs;
  return {
    inputs,
    outputs:
      inputs &&
      range(inputs.length * each).map((m) => inputs[Math.floor(m / each)] * each + (m % each)),
  };
}

const byWeights = (method: CompressParameters['method']): method is 'udfc' | 'neuron-merging' =>
  method === 'udfc' || method === 'neuron-merging';

function remember(
  trace: FilterTrace,
  visit: LayerVisit,
  { method, quantScale }: CompressParameters,
  rounding: Rounding | undefined,
): void {
  if (!byWeights(method)) return;
  const rounded = quantScale && rounding && roundFilters(visit.layer.filters, rounding);
  trace.add(visit, rounded ? rounded.filters.weights : undefined);
}

/** What the layer reads in both networks. */
async function signalOf(
  visit: LayerVisit,
  inputs: Uint32Array | undefined,
  { measure }: RewriteOptions,
  done: readonly RewrittenLayer[],
): Promise<Signal> {
  const { input, inputKept, layer } = visit;
  if (measure && (inputs || input.compressed))
    return measure(visit, inputs?.length ?? layer.filters.inputs, done);
  // Where nothing is known of the input any more, the channels are as good as new.
  if (inputs && !inputKept)
    return { original: input.original, compressed: droppedMoments(input.original, inputs) };
  return input;
}

function rewrite(
  visit: LayerVisit,
  signal: Signal,
  kept: KeptChannels,
  rounding: Rounding | undefined,
  trace: FilterTrace,
  given: CompressParameters,
) {
  const { layer, depthwise, step, storage } = visit;
  const { filters } = layer;
  const outputs = kept.outputs ?? range(filters.outputs);
  const mixing = depthwise ? undefined : mix(visit, signal, kept.inputs, trace, given);
  const inputs = kept.inputs?.length ?? filters.inputs;
  const weights = mixing ? mixInputs(filters, mixing, inputs) : filters.weights;
  const rows = keptRows({ ...filters, weights }, outputs, inputs);
  const before = signal.compressed ?? unchanged(signal.original);
  const repairs = given.method === 'gauss';
  const rounded: RoundedFilters | undefined =
    rounding && roundFilters(rows, rounding, repairs ? { ...before, r: step.r } : undefined);
  const filtersAfter = rounded?.filters ?? rows;

  const shift = repairs ? lostMean(visit, signal, before, filtersAfter, outputs) : undefined;
  const change = { filters: filtersAfter, kept: outputs, ...(shift && { shift }) };
  const after = compressedStep(signal, layer, step, change, repairs);
  const rewritten: RewrittenLayer = {
    node: visit.node,
    output: visit.output,
    kept: outputs,
    parameters: changedParameters(visit, filtersAfter, after),
    ...(rounded && {
      bits: rounding?.bits,
      scales: rounded.scales.map((scale) => scale / Math.abs(storage.gain)),
    }),
    ...(mixing && { condition: mixing.condition, ridge: mixing.ridge }),
    moments: outputMoments(after.preActivation),
    predictedError: relativeError(step.preActivation, after.preActivation, outputs),
  };
  return { layer: rewritten, moments: after.preActivation };
}

function mix(
  visit: LayerVisit,
  signal: Signal,
  inputs: Uint32Array | undefined,
  trace: FilterTrace,
  { method, alpha1, alpha2, quantScale }: CompressParameters,
): Mixing | undefined {
  const { filters } = visit.layer;
  const { inputs: channels, groups: blocks } = filters;
  if (!inputs) {
    if (!quantScale) return undefined;
    return scaleMixing(trace.behind(visit.node.input[0]), channels, { alpha1, alpha2 });
  }
  const dropped = () => ({ s: dropMatrix(inputs, channels), ridge: 0, condition: 1 });
  if (method === 'drop') return dropped();
  if (method === 'gauss')
    return reconstruct(signal.original, inputs, signal.compressed, { blocks });
  const behind = trace.behind(visit.node.input[0]);
  return weightMixing(behind, inputs, channels, method, { alpha1, alpha2, blocks }) ?? dropped();
}

function mixInputs(filters: Filters, { s }: Mixing, kept: number): Float64Array {
  const { weights, outputs, inputs, groups } = filters;
  const channels = inputs / groups;
  const view = { outer: outputs, channels, inner: weights.length / (outputs * channels) };
  return mixAxis(weights, view, s, kept, groups);
}

/** [n] Mean of the original's output less that of the compressed: what a bias can give back. */
function lostMean(
  { step, layer: { filters }, node }: LayerVisit,
  { original }: Signal,
  before: Moments,
  after: Filters,
  outputs: Uint32Array,
): Float64Array | undefined {
  // Its beta is a factor of a bias that is not there.
  if (node.opType === 'Gemm' && floatAttribute(node, 'beta', 1) === 0) return undefined;
  const now = outputMean(after, before.mean);
  const mean = original.mean === before.mean ? step.convMean : outputMean(filters, original.mean);
  const lost = now.map((value, m) => mean[outputs[m]] - value);
  return lost.some((value) => value !== 0) ? lost : undefined;
}

const outputMoments = ({ mean, covariance }: Moments): OutputMoments => ({
  mean,
  deviation: mean.map((_, m) => Math.sqrt(Math.max(0, covariance[m * (mean.length + 1)]))),
});

/** Σ E(u - ũ)² / Σ E u² over the outputs that are left. */
function relativeError(
  original: Moments,
  compressed: Moments & { cross: Float64Array },
  kept: Uint32Array,
): number {
  const [total, n] = [original.mean.length, kept.length];
  let [error, power] = [0, 0];
  for (const [m, i] of kept.entries()) {
    const variance = original.covariance[i * (total + 1)];
    const difference = original.mean[i] - compressed.mean[m];
    const both = compressed.cross[i * n + m];
    error += variance + compressed.covariance[m * (n + 1)] - 2 * both + difference * difference;
    power += variance + original.mean[i] * original.mean[i];
  }
  return power > 0 ? Math.max(0, error) / power : 0;
}

function changedParameters(
  { node, storage, bias, norm }: LayerVisit,
  filters: Filters,
  after: ReturnType<typeof compressedStep>,
): ParameterValue[] {
  const { dims, values } = storedWeights(storage, filters);
  const changed: ParameterValue[] = [
    { output: node.output[0], input: storage.input, shape: dims, values },
  ];
  const vector = (of: NodeProto, input: number, all: Float64Array) =>
    changed.push({ output: of.output[0], input, shape: [all.length], values: all });
  if (after.bias) {
    const at = bias ?? { node, input: 2 };
    const beta = at.node.opType === 'Gemm' ? floatAttribute(at.node, 'beta', 1) : 1;
    vector(at.node, at.input, beta === 1 ? after.bias : after.bias.map((value) => value / beta));
  }
  if (norm && after.norm) {
    vector(norm, 3, after.norm.mean);
    vector(norm, 4, after.norm.variance);
  }
  return changed;
}
