import { modelError } from '../../../errors.js';
import type { ConstantView } from '../../../graph/constants.js';
import { floatAttribute, intAttribute, isStandard } from '../../../graph/nodes.js';
import { type WeightLayer, weightLayers } from '../../../graph/weight-layers.js';
import { readMatrix } from '../../../graph/weight-matrix.js';
import { Workspace } from '../../../graph/workspace.js';
import { type Model, type NodeProto, readTensorFloat32, tensorInfo } from '../../../onnx/index.js';
import { outputAffine } from '../maths/batch-norm.js';

/** A layer that took over the BatchNormalization behind it. */
export interface Folded {
  /** The layer's node as it was. */
  from: NodeProto;
  /** The layer's node as it is now. It puts out what the BatchNormalization did. */
  node: NodeProto;
  /** [channels] what the weights of each output channel were multiplied by: γ/√(var + ε). */
  scale: Float64Array;
}

/**
 * Folds every BatchNormalization into the Conv, ConvTranspose or Gemm in front of it, where nothing
 * else reads that one's output, in place: W' = a·W, b' = a·b + β - a·mean with a = γ/√(var + ε), in
 * float64 and rounded once. A weight keeps its name if only this layer reads it.
 * @param chooses which layers; all by default
 * @throws {ResectError} exit 5 and 7 when a parameter cannot be read
 */
export async function foldBatchNorm(
  model: Model,
  chooses: (layer: WeightLayer) => boolean = () => true,
): Promise<Folded[]> {
  const workspace = new Workspace(model);
  const replaced = new Map<NodeProto, NodeProto[]>();
  const folded: Folded[] = [];
  for (const layer of weightLayers(workspace).layers) {
    const norm = chooses(layer) ? foldable(workspace, layer) : undefined;
    if (!norm) continue;
    const made = await fold(workspace, layer, norm);
    replaced.set(layer.node, [made.node]).set(norm, []);
    folded.push(made);
  }
  if (folded.length === 0) return folded;
  workspace.commit(workspace.graph.node.flatMap((node) => replaced.get(node) ?? [node]));
  return folded;
}

/** The BatchNormalization behind a layer, if it can go. */
function foldable(workspace: Workspace, layer: WeightLayer): NodeProto | undefined {
  const { node, op, weight } = layer;
  const norm = workspace.onlyReader(workspace.output(node));
  if (op === 'MatMul' || !norm || !isStandard(norm) || norm.opType !== 'BatchNormalization')
    return undefined;
  const inference =
    intAttribute(norm, 'training_mode', 0) === 0 &&
    intAttribute(norm, 'spatial', 1) === 1 &&
    !norm.output.slice(1).some(Boolean);
  const channels = outputChannels(layer);
  const isVector = (view: ConstantView | undefined) =>
    view?.dtype === 'float32' && tensorInfo(view.tensor).elements === channels;
  const bias = node.input[2] ? workspace.constant(node, 2) : undefined;
  const biased = !node.input[2] || isVector(bias);
  return inference &&
    weight.view.dtype === 'float32' &&
    biased &&
    norm.input[0] === node.output[0] &&
    [1, 2, 3, 4].every((i) => isVector(workspace.constant(norm, i)))
    ? norm
    : undefined;
}

function outputChannels({ node, op, shape, weight }: WeightLayer): number {
  return op === 'ConvTranspose' ? shape[1] * intAttribute(node, 'group', 1) : weight.rows;
}

async function fold(workspace: Workspace, layer: WeightLayer, norm: NodeProto): Promise<Folded> {
  const { node, op, weight, shape, name: where } = layer;
  const vector = async (of: NodeProto, index: number) => {
    const view = workspace.constant(of, index);
    if (!view) throw new Error('a vector that was there is gone');
    return Float64Array.from(await readTensorFloat32(workspace.model, view.tensor));
  };
  const gemmBeta = op === 'Gemm' ? floatAttribute(node, 'beta', 1) : 1;
  const bias = node.input[2] ? (await vector(node, 2)).map((b) => b * gemmBeta) : undefined;
  const [gamma, beta, mean, variance] = await Promise.all([1, 2, 3, 4].map((i) => vector(norm, i)));
  const epsilon = floatAttribute(norm, 'epsilon', 1e-5);
  const batchNorm = { gamma, beta, mean, variance, epsilon };
  const { scale, shift } = outputAffine(gamma.length, batchNorm, bias);
  if (![...scale, ...shift].every(Number.isFinite))
    throw modelError('A BatchNormalization has no finite scale and shift.', {
      where: `node ${norm.name || norm.output[0]}`,
      expected: 'finite parameters and a variance that is not negative',
      hint: `Leave the layer ${where} out, or repair the model.`,
    });

  const { view } = weight;
  const isOwn = workspace.constants.uses(view.tensor).length === 1;
  const direct = isOwn && view.source.name === node.input[1] && view.source.consumers.length === 1;
  const name = view.tensor.name || view.source.name;
  const scaled = await scaledWeight(workspace.model, layer, scale);
  const stored = workspace.storeFloats(direct ? view.source : name, scaled, shape);
  const shifted = workspace.storeFloats(
    node.input[2] ? `${node.input[2]}_folded` : `${name}_bias`,
    Float32Array.from(shift),
    [shift.length],
  );
  const folded: NodeProto = {
    ...node,
    input: [node.input[0], stored, shifted],
    output: [norm.output[0]],
    attribute: node.attribute.filter(({ name }) => op !== 'Gemm' || name !== 'beta'),
  };
  return { from: node, node: folded, scale };
}

/** The weight as the node reads it, each output channel times its scale. */
async function scaledWeight(
  model: Model,
  { node, op, shape, axis, weight: { view } }: WeightLayer,
  scale: Float64Array,
): Promise<Float32Array> {
  const elements = shape.reduce((a, b) => a * b, 1);
  const ordered = { view, rows: 1, cols: elements, outAxes: [], inAxes: view.axes, groups: 1 };
  const values = await readMatrix(model, ordered);
  // Strides: of an output channel, and of a group of inputs whose channels follow the ones before.
  const channelAxis = op === 'ConvTranspose' ? 1 : axis;
  const inner = shape.slice(channelAxis + 1).reduce((a, b) => a * b, 1);
  const perGroup = shape[channelAxis];
  const groups = op === 'ConvTranspose' ? intAttribute(node, 'group', 1) : 1;
  return values.map((w, k) => {
    const group = Math.floor((k * groups) / elements);
    return w * scale[group * perGroup + (Math.floor(k / inner) % perGroup)];
  });
}
