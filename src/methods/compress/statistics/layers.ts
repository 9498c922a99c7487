/** The parameters of a node that is linear in channels, as the maths wants them, and back again. */
import { modelError } from '../../../errors.js';
import type { Constants, ConstantView } from '../../../graph/constants.js';
import type { Graph, Value } from '../../../graph/graph.js';
import { floatAttribute, intAttribute, intsAttribute, isStandard } from '../../../graph/nodes.js';
import type { Model, NodeProto } from '../../../onnx/index.js';
import type { BatchNorm } from '../maths/batch-norm.js';
import type { Filters } from '../maths/gaussian-conv.js';
import type { Layer } from '../maths/gaussian-step.js';
import { type ChannelTensor, lose } from './channel-tensor.js';
import { constantView, readView } from './constants.js';

/** A Conv, ConvTranspose, Gemm or MatMul with what belongs to it. */
export interface LayerNode {
  /** The node's name or, where it has none, that of its output. */
  name: string;
  node: NodeProto;
  /** Weights [outputs, inputs/groups, taps]; after a Flatten the positions are taps. */
  layer: Layer;
  /** A convolution of each channel by itself. */
  depthwise: boolean;
  storage: WeightStorage;
  /** Whose input `input` is the bias: the node itself, or the Add behind a MatMul. */
  bias?: { node: NodeProto; input: number };
  /** The BatchNormalization behind it. */
  norm?: NodeProto;
  /** The value that bias and BatchNormalization have been added to. */
  output: string;
}

/** How the weight input of a node is laid out. */
export interface WeightStorage {
  view: ConstantView;
  /** Which input of the node it is. */
  input: number;
  order: readonly WeightAxis[];
  /** What the node multiplies its weight by: Gemm's alpha, and see `convolutionTransposed`. */
  gain: number;
}

type WeightAxis = 'group' | 'output' | 'input' | 'tap';

/** The graph that layers are read from. */
export interface Source {
  model: Model;
  graph: Graph;
  constants: Constants;
}

/** Whether a node is read as a layer. */
export const isLayer = ({ graph, constants }: Source, node: NodeProto): boolean =>
  isStandard(node) &&
  ['Conv', 'ConvTranspose', 'Gemm', 'MatMul'].includes(node.opType ?? '') &&
  constantView(graph, constants, node, 1) !== undefined;

/**
 * Reads a layer; `input`, when it is known, says what a Flatten in front of a Gemm did.
 * @throws {LostSignal} for forms that are not followed
 * @throws {ResectError} exit 5 for parameters that are not finite, or negative variances
 */
export async function readLayer(
  source: Source,
  node: NodeProto,
  input?: ChannelTensor,
): Promise<LayerNode> {
  const { model, graph, constants } = source;
  const name = node.name || node.output[0];
  const view = constantView(graph, constants, node, 1);
  if (!view) throw new Error(`${name} is no layer`);
  const { filters, order, gain } = describeWeight(
    node,
    view.axes.map(({ size }) => size),
    input,
  );
  const stored = (await readView(model, view)).values;
  const weights = fromStored(stored, filters, order, gain);
  checkFinite(weights, name, 'weight');
  const full: Filters = { ...filters, weights };
  const biasAt = findBias(source, node, full.outputs);
  const bias = biasAt && (await readBias(source, biasAt, full.outputs, name));
  const last = biasAt?.node ?? node;
  const found = await findNorm(source, graph.root.values.get(last.output[0] ?? ''), full.outputs);
  return {
    name,
    node,
    layer: { filters: full, ...(bias && { bias }), ...(found && { norm: found.norm }) },
    depthwise: full.groups > 1 && full.groups === full.inputs,
    storage: { view, input: 1, order, gain },
    ...(biasAt && { bias: biasAt }),
    ...(found && { norm: found.node }),
    output: (found?.node ?? last).output[0],
  };
}

interface Weight {
  filters: Omit<Filters, 'weights'>;
  order: readonly WeightAxis[];
  gain: number;
}

function describeWeight(node: NodeProto, dims: number[], input?: ChannelTensor): Weight {
  if (node.opType === 'Conv' || node.opType === 'ConvTranspose') {
    if (dims.length < 3) lose(`the weight of ${node.opType} is of rank ${dims.length}`);
    const groups = intAttribute(node, 'group', 1);
    if (groups < 1 || dims[0] % groups) lose(`${groups} groups do not divide the channels`);
    const dilations = intsAttribute(node, 'dilations');
    return node.opType === 'Conv'
      ? convolution(dims, groups, dilations)
      : convolutionTransposed(node, dims, groups, dilations);
  }
  return product(node, dims, input);
}

function convolution(dims: number[], groups: number, dilations?: number[]): Weight {
  const [outputs, width, ...kernel] = dims;
  return {
    filters: { outputs, inputs: width * groups, kernel, dilations, groups },
    order: ['group', 'output', 'input', 'tap'],
    gain: 1,
  };
}

/**
 * A transposed convolution puts one of every `stride` taps on a position, taps divided by strides on
 * average. It is taken for a convolution with all taps, divided by the product of the strides: its
 * mean is that over positions; variances, where no BatchNormalization tells them, are only as good as
 * neighbouring inputs are alike.
 */
function convolutionTransposed(
  node: NodeProto,
  dims: number[],
  groups: number,
  dilations?: number[],
): Weight {
  const [inputs, width, ...kernel] = dims;
  const strides = intsAttribute(node, 'strides') ?? [];
  return {
    filters: { outputs: width * groups, inputs, kernel, dilations, groups },
    order: ['group', 'input', 'output', 'tap'],
    gain: 1 / strides.reduce((a, b) => a * b, 1),
  };
}

function product(node: NodeProto, dims: number[], input?: ChannelTensor): Weight {
  if (dims.length !== 2) lose(`the weight of ${node.opType} is of rank ${dims.length}`);
  if (intAttribute(node, 'transA', 0) !== 0) lose('Gemm has transA');
  const turned = intAttribute(node, 'transB', 0) !== 0;
  const [outputs, features] = turned ? dims : [dims[1], dims[0]];
  const gain = node.opType === 'Gemm' ? floatAttribute(node, 'alpha', 1) : 1;
  if (gain === 0) lose('Gemm has alpha 0');
  const { axis, dims: sizes, folded } = input?.layout ?? {};
  if (sizes && axis !== sizes.length - 1) lose('channels are not what it sums over');
  const kernel = folded?.sizes ?? [];
  const inputs = features / kernel.reduce((a, b) => a * b, 1);
  const inner: WeightAxis[] = folded?.channelsFirst === false ? ['tap', 'input'] : ['input', 'tap'];
  return {
    filters: { outputs, inputs, kernel, groups: 1 },
    order: turned ? ['output', ...inner] : [...inner, 'output'],
    gain,
  };
}

/** Offsets in storage along each of the axes of a weight. */
function strides(
  { outputs, inputs, kernel, groups }: Omit<Filters, 'weights'>,
  order: readonly WeightAxis[],
) {
  const sizes = {
    group: groups,
    output: outputs / groups,
    input: inputs / groups,
    tap: kernel.reduce((a, b) => a * b, 1),
  };
  const step = { group: 0, output: 0, input: 0, tap: 0 };
  let stride = 1;
  for (const axis of [...order].reverse()) {
    step[axis] = stride;
    stride *= sizes[axis];
  }
  return { sizes, step };
}

/** Calls `visit` with every element's place in `Filters.weights` and in storage. */
function forEachWeight(
  filters: Omit<Filters, 'weights'>,
  order: readonly WeightAxis[],
  visit: (place: number, stored: number) => void,
): void {
  const { sizes, step } = strides(filters, order);
  let k = 0;
  for (let g = 0; g < sizes.group; g++) {
    for (let o = 0; o < sizes.output; o++) {
      for (let i = 0; i < sizes.input; i++) {
        const start = g * step.group + o * step.output + i * step.input;
        for (let t = 0; t < sizes.tap; t++) visit(k++, start + t * step.tap);
      }
    }
  }
}

function fromStored(
  stored: Float64Array,
  filters: Omit<Filters, 'weights'>,
  order: readonly WeightAxis[],
  gain: number,
): Float64Array {
  const weights = new Float64Array(stored.length);
  forEachWeight(filters, order, (place, at) => {
    weights[place] = gain * stored[at];
  });
  return weights;
}

/**
 * Filters, of any numbers of channels, as the node's weight input has to hold them: the way back from
 * `LayerNode.layer.filters`.
 */
export function storedWeights(
  { order, gain }: WeightStorage,
  filters: Filters,
): { dims: number[]; values: Float64Array } {
  const values = new Float64Array(filters.weights.length);
  forEachWeight(filters, order, (place, at) => {
    values[at] = filters.weights[place] / gain;
  });
  const { outputs, inputs, kernel, groups } = filters;
  if (order[0] === 'group') {
    const leading = order[1] === 'output' ? [outputs, inputs / groups] : [inputs, outputs / groups];
    return { dims: [...leading, ...kernel], values };
  }
  const features = kernel.reduce((a, b) => a * b, inputs);
  return { dims: order[0] === 'output' ? [outputs, features] : [features, outputs], values };
}

/**
 * The rows `kept` of filters, which may have been rewritten for `inputs` channels; those of a depthwise
 * convolution are as many as its channels.
 */
export function keptRows(filters: Filters, kept: Uint32Array, inputs: number): Filters {
  const width = filters.weights.length / filters.outputs;
  const weights = new Float64Array(kept.length * width);
  kept.forEach((row, m) => {
    weights.set(filters.weights.subarray(row * width, (row + 1) * width), m * width);
  });
  const depthwise = filters.groups === filters.inputs && filters.groups > 1;
  const groups = depthwise ? inputs : filters.groups;
  return { ...filters, weights, outputs: kept.length, inputs, groups };
}

function findBias(
  { graph, constants }: Source,
  node: NodeProto,
  outputs: number,
): LayerNode['bias'] {
  if (node.opType !== 'MatMul') return node.input[2] ? { node, input: 2 } : undefined;
  const use = onlyUse(graph.root.values.get(node.output[0] ?? ''));
  if (use?.node.opType !== 'Add' || !isStandard(use.node)) return undefined;
  const input = 1 - use.index;
  const sizes = constantView(graph, constants, use.node, input)?.axes.map(({ size }) => size);
  const isRow = sizes?.at(-1) === outputs && sizes.slice(0, -1).every((size) => size === 1);
  return isRow ? { node: use.node, input } : undefined;
}

async function readBias(
  { model, graph, constants }: Source,
  { node, input }: NonNullable<LayerNode['bias']>,
  outputs: number,
  name: string,
): Promise<Float64Array> {
  const view = constantView(graph, constants, node, input);
  if (!view) lose('its bias is not a stored constant');
  const { values } = await readView(model, view);
  if (values.length !== outputs && values.length !== 1) lose('its bias is not one per output');
  checkFinite(values, name, 'bias');
  const beta = node.opType === 'Gemm' ? floatAttribute(node, 'beta', 1) : 1;
  return Float64Array.from({ length: outputs }, (_, i) => beta * values[i % values.length]);
}

async function findNorm(source: Source, value: Value | undefined, channels: number) {
  const use = onlyUse(value);
  if (use?.index !== 0 || !isStandard(use.node)) return undefined;
  if (use.node.opType !== 'BatchNormalization') return undefined;
  const norm = await readNorm(source, use.node, channels);
  return norm && { node: use.node, norm };
}

/** The only reader of a value, which is no output of the graph. */
function onlyUse(value: Value | undefined) {
  if (!value || value.isOutput || value.consumers.length !== 1) return undefined;
  const [use] = value.consumers;
  return use.scope === value.scope ? use : undefined;
}

/**
 * The stored parameters of a BatchNormalization; undefined when they are not of `channels` channels,
 * or it takes its statistics from the batch.
 */
export async function readNorm(
  { model, graph, constants }: Source,
  node: NodeProto,
  channels: number,
): Promise<BatchNorm | undefined> {
  if (intAttribute(node, 'training_mode', 0) !== 0 || intAttribute(node, 'spatial', 1) === 0) {
    return undefined;
  }
  const parts: Float64Array[] = [];
  for (const index of [1, 2, 3, 4]) {
    const view = constantView(graph, constants, node, index);
    if (view?.axes.length !== 1 || view.axes[0].size !== channels) return undefined;
    const { values } = await readView(model, view);
    checkFinite(values, node.name || node.output[0], 'parameter');
    parts.push(values);
  }
  const [gamma, beta, mean, variance] = parts;
  const worst = variance.reduce((a, b) => Math.min(a, b), 0);
  if (worst < 0) {
    throw modelError('A BatchNormalization has a negative variance.', {
      where: `node ${node.name || node.output[0]}`,
      got: `${worst}`,
      hint: 'The file is damaged: get or export the model again.',
    });
  }
  return { gamma, beta, mean, variance, epsilon: floatAttribute(node, 'epsilon', 1e-5) };
}

function checkFinite(values: Float64Array, name: string, what: string): void {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return;
  throw modelError(`A ${what} is not a finite number.`, {
    where: `layer ${name}`,
    got: `${values[bad]} at element ${bad}`,
    hint: 'Repair or export the model again, or leave the layer out with --exclude.',
  });
}
