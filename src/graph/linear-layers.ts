import { type NodeProto, tensorInfo } from '../onnx/index.js';
import { Constants, type ConstantView, isView } from './constants.js';
import type { Graph, Scope } from './graph.js';
import { floatAttribute, intAttribute, opName } from './nodes.js';
import type { WeightMatrix } from './weight-matrix.js';

/** Where a linear layer's input features lie in the activation that feeds it. */
export type FeatureLayout =
  /** Features run along the last axis, or the last but one. Every other axis is a sample. */
  | { kind: 'axis'; axis: -1 | -2 }
  /** Features are the patches that a convolution sees; every output position is a sample. */
  | { kind: 'patches'; node: NodeProto; kernel: number[]; channels: number };

/** A node that multiplies an activation by a weight. */
export interface LinearLayer {
  /** Unique in the model; the node's name where it has one. */
  name: string;
  op: string;
  node: NodeProto;
  scope: Scope;
  /** The activation that feeds it, as a name in `scope`. */
  input: string;
  layout?: FeatureLayout;
  weight?: WeightMatrix;
  /** Constant factor on the product (Gemm's alpha). */
  alpha: number;
  /** Why methods that edit weights must leave it alone; absent when they may edit it. */
  skip?: string;
  /** True when its output is the model's prediction over a vocabulary, or its weight an embedding's. */
  isHead: boolean;
}

/**
 * All linear layers of a model, at every depth, in file order: MatMul, Gemm, Conv and the fused
 * forms of them with a constant weight, eligible or not. Products of two activations are no layers.
 */
export function findLinearLayers(graph: Graph, constants = new Constants(graph)): LinearLayer[] {
  const layers: LinearLayer[] = [];
  /** How often a name was given out. */
  const names = new Map<string, number>();
  for (const scope of graph.scopes) {
    for (const [i, node] of scope.graph.node.entries()) {
      const found = describe(graph, constants, scope, node);
      if (!found) continue;
      const stem = node.name || storedName(found.weight) || `${node.opType}_${i}`;
      const base = scope.path && !node.name ? `${scope.path}/${stem}` : stem;
      let name = base;
      for (let n = names.get(base) ?? 0; names.has(name); ) {
        name = `${base}#${++n}`;
        names.set(base, n);
      }
      names.set(name, 1);
      layers.push({ ...found, name });
    }
  }
  for (const layer of layers) {
    layer.isHead = isHead(graph, constants, layer);
    layer.skip ??= sharingProblem(constants, layers, layer);
  }
  return layers;
}

type Found = Omit<LinearLayer, 'name'>;

const storedName = (w?: WeightMatrix) => w?.view.tensor.name || w?.view.source.name;

/** Ops that hold packed or integer weights, and where among their inputs a weight may be. */
const unsupported: Record<string, { weights: number[]; reason: string }> = {
  ConvTranspose: { weights: [1], reason: 'transposed convolution' },
  DeformConv: { weights: [1], reason: 'deformable convolution' },
  LSTM: { weights: [1], reason: 'recurrent layer with packed gates' },
  GRU: { weights: [1], reason: 'recurrent layer with packed gates' },
  RNN: { weights: [1], reason: 'recurrent layer' },
  Einsum: { weights: [0, 1], reason: 'Einsum' },
  QLinearConv: { weights: [3], reason: 'integer arithmetic' },
  QLinearMatMul: { weights: [3], reason: 'integer arithmetic' },
  MatMulInteger: { weights: [1], reason: 'integer arithmetic' },
  ConvInteger: { weights: [1], reason: 'integer arithmetic' },
  'com.microsoft.MatMulNBits': { weights: [1], reason: 'weights packed below 8 bits' },
  'com.microsoft.QGemm': { weights: [3], reason: 'integer arithmetic' },
  'com.microsoft.DynamicQuantizeMatMul': { weights: [1], reason: 'integer arithmetic' },
  'com.microsoft.MatMulIntegerToFloat': { weights: [1], reason: 'integer arithmetic' },
};

function describe(
  graph: Graph,
  constants: Constants,
  scope: Scope,
  node: NodeProto,
): Found | undefined {
  const op = opName(node);
  const traceInput = (index: number) => {
    const value = graph.input(scope, node, index);
    return value && constants.trace(value);
  };
  const skipped = (reason: string): Found => ({
    op,
    node,
    scope,
    input: node.input[0] ?? '',
    alpha: 1,
    skip: reason,
    isHead: false,
  });

  const refusal = Object.hasOwn(unsupported, op) ? unsupported[op] : undefined;
  if (refusal) return refusal.weights.some(traceInput) ? skipped(refusal.reason) : undefined;

  const form = linearForm(op, node, (i) => isView(traceInput(i)));
  if (!form) return undefined;
  const traced = traceInput(form.weight);
  if (!traced) return undefined;
  if (!isView(traced)) return skipped(`weight ${traced.reason}`);
  const found: Found = {
    ...skipped(''),
    input: node.input[form.activation] ?? '',
    alpha: form.alpha,
    skip: undefined,
  };
  if (form.kernel) return convolution(found, node, traced);

  if (traced.axes.length !== 2) {
    return {
      ...found,
      skip: traced.axes.length < 2 ? 'weight is a vector' : 'batch of weight matrices',
    };
  }
  const [outAxis, inAxis] = form.transposed ? traced.axes : [traced.axes[1], traced.axes[0]];
  found.weight = {
    view: traced,
    rows: outAxis.size,
    cols: inAxis.size,
    outAxes: [outAxis],
    inAxes: [inAxis],
    groups: 1,
  };
  found.layout = { kind: 'axis', axis: form.featureAxis };
  found.skip = storageProblem(found.weight);
  return found;
}

/** How an op multiplies: which inputs, and whether its weight is stored `[out, in]`. */
interface LinearForm {
  weight: number;
  activation: number;
  transposed: boolean;
  featureAxis: -1 | -2;
  alpha: number;
  kernel?: true;
}

function linearForm(
  op: string,
  node: NodeProto,
  isConstant: (input: number) => boolean,
): LinearForm | undefined {
  const flag = (name: string) => intAttribute(node, name, 0) !== 0;
  const plain = { weight: 1, activation: 0, alpha: 1, transposed: false, featureAxis: -1 } as const;
  switch (op) {
    case 'com.microsoft.FusedMatMul':
      if (flag('transBatchA') || flag('transBatchB')) return undefined;
      return product();
    case 'MatMul':
    case 'Gemm':
    case 'com.microsoft.FusedGemm':
      return product();
    case 'com.microsoft.Attention':
      return plain;
    case 'Conv':
    case 'com.microsoft.FusedConv':
      return { ...plain, kernel: true };
    default:
      return undefined;
  }

  /** alpha·A'·B', either of them transposed by a flag, with the constant on whichever side it is. */
  function product(): LinearForm {
    const alpha = floatAttribute(node, 'alpha', 1);
    const [transA, transB] = [flag('transA'), flag('transB')];
    return isConstant(1) || !isConstant(0)
      ? { weight: 1, activation: 0, alpha, transposed: transB, featureAxis: transA ? -2 : -1 }
      : { weight: 0, activation: 1, alpha, transposed: !transA, featureAxis: transB ? -1 : -2 };
  }
}

function convolution(found: Found, node: NodeProto, view: ConstantView): Found {
  if (view.axes.length < 3) return { ...found, skip: 'convolution weight of rank below 3' };
  const groups = intAttribute(node, 'group', 1);
  const [outAxis, ...inAxes] = view.axes;
  const cols = inAxes.reduce((n, a) => n * a.size, 1);
  if (groups < 1 || outAxis.size % groups)
    return { ...found, skip: 'groups do not divide the output channels' };
  found.weight = { view, rows: outAxis.size, cols, outAxes: [outAxis], inAxes, groups };
  const [channels, ...kernel] = inAxes.map((a) => a.size);
  found.layout = { kind: 'patches', node, kernel, channels: channels * groups };
  if (groups > 1 && channels === 1)
    return { ...found, skip: 'depthwise convolution: too few weights a row' };
  return { ...found, skip: storageProblem(found.weight) };
}

const editable = new Set(['float32', 'float64', 'float16', 'bfloat16']);
const editableQuantized = new Set(['int8', 'uint8', 'int16', 'uint16']);

function storageProblem({ view, rows, cols }: WeightMatrix): string | undefined {
  const { dtype } = tensorInfo(view.tensor);
  if (rows * cols === 0) return 'empty weight';
  if (!(view.dequantization ? editableQuantized : editable).has(dtype)) {
    return view.dequantization ? `${dtype} quantized storage` : `${dtype} weight`;
  }
  return undefined;
}

/** A tensor may be edited only when every reader is a linear layer that sees it the same way. */
function sharingProblem(
  constants: Constants,
  layers: LinearLayer[],
  layer: LinearLayer,
): string | undefined {
  const { weight } = layer;
  if (!weight) return undefined;
  const { tensor } = weight.view;
  if (constants.isOutput(tensor)) return 'weight is an output of the model';
  const mates = layers.filter((other) => other.weight?.view.tensor === tensor);
  for (const use of constants.uses(tensor)) {
    const mate = mates.find((m) => m.node === use.node && m.weight?.view.axes === use.view.axes);
    if (!mate?.weight) return `weight is also read by ${opName(use.node)}`;
    if (!sameOrientation(mate.weight, weight)) return 'weight is shared in two orientations';
  }
  return undefined;
}

const sameOrientation = (a: WeightMatrix, b: WeightMatrix): boolean =>
  a.groups === b.groups &&
  JSON.stringify([a.outAxes, a.inAxes]) === JSON.stringify([b.outAxes, b.inAxes]);

const carriesLogits = new Set(['Add', 'Cast', 'Reshape', 'Identity']);

/** Out features over in features from which an output layer is taken for a vocabulary head. */
const headExpansion = 4;

function isHead(graph: Graph, constants: Constants, layer: LinearLayer): boolean {
  if (!layer.weight) return false;
  if (constants.uses(layer.weight.view.tensor).some((use) => use.node.opType === 'Gather'))
    return true;
  if (layer.weight.rows < headExpansion * layer.weight.cols || layer.layout?.kind !== 'axis')
    return false;
  let value = layer.scope.values.get(layer.node.output[0] ?? '');
  while (value && !value.isOutput) {
    const [use] = value.consumers;
    if (!use || !carriesLogits.has(use.node.opType ?? '')) return false;
    value = graph.lookup(use.scope, use.node.output[0] ?? '');
  }
  return value !== undefined;
}
