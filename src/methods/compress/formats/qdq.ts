import { makeNode } from '../../../graph/build.js';
import { topologicalOrder } from '../../../graph/topology.js';
import { type WeightLayer, weightLayers } from '../../../graph/weight-layers.js';
import { Workspace } from '../../../graph/workspace.js';
import { type Model, type NodeProto, readTensorFloat32 } from '../../../onnx/index.js';
import { requireOpset } from '../../opset.js';
import type { Quantized } from '../maths/quantize.js';
import { roundHalfEven } from '../maths/rounding.js';
import { type ActivationRanges, type Range, uint8Grid } from './activation-ranges.js';
import { foldBatchNorm } from './fold-batch-norm.js';
import { dataInputs, integerKind } from './integer-ops.js';
import {
  dequantizeNode,
  IntegerStore,
  type IntegerWeight,
  quantizeLayer,
} from './integer-weights.js';
import type { ChooseFormat, StoredLayer, WeightFormat } from './layers.js';
import { type IntegerNode, type IntegerPlan, planIntegers } from './qdq-plan.js';
import { refuseQuantized } from './refuse-quantized.js';

/** Codes of a bias stay below this, so that a sum of products can be added in 32 bits. */
const mostBiasCode = 2 ** 30;

/**
 * Turns the model into one with QuantizeLinear and DequantizeLinear around its layers, in place, which
 * ONNX Runtime fuses to integer kernels when it loads it: weights int8 per channel or per tensor
 * (codes of less than 8 bits are int8, too), biases int32 with the scale of input times weight,
 * activations uint8. Sums, products, Concats and poolings between layers compute in integers as well;
 * Relu and Clip behind a layer are done by the range of its output. BatchNormalizations are folded
 * first. Everything else reads and writes floats. The model comes to opset 13 at least.
 *
 * A layer without a known range of its input or output, and any other that no integer kernel
 * serves, keeps float activations and gets its weight stored as integers alone.
 * @param ranges by value name, of the model before folding
 * @param folds which layers take over the BatchNormalization behind them: all, or those that are chosen
 * @returns each layer, in file order
 * @throws {ResectError} exit 5 for quantised models, numbers that are not finite, opsets below 7; 2
 *   for bits other than 2 to 8
 */
export async function storeQdq(
  model: Model,
  choose: ChooseFormat,
  ranges: ActivationRanges,
  { folds = 'all' }: { folds?: 'all' | 'chosen' } = {},
): Promise<StoredLayer[]> {
  refuseQuantized(model.proto);
  /** By the value that the layer puts out. */
  const formats = new Map<string, { format: WeightFormat; factors?: Float64Array }>();
  for (const layer of weightLayers(new Workspace(model)).layers) {
    const format = choose(layer);
    if (format) formats.set(layer.node.output[0], { format });
  }
  const takes = ({ node }: WeightLayer) => folds === 'all' || formats.has(node.output[0]);
  for (const { from, node, scale } of await foldBatchNorm(model, takes)) {
    const chosen = formats.get(from.output[0]);
    if (chosen) formats.set(node.output[0], { ...chosen, factors: scale });
  }
  requireOpset(model, 13);

  const workspace = new Workspace(model);
  const { layers, skipped } = weightLayers(workspace);
  const chosen = layers.filter(({ node }) => formats.has(node.output[0]));
  const plan = await planIntegers(workspace, chosen, ranges);
  const writer = new QdqWriter(workspace, plan);
  const reports: StoredLayer[] = [];
  for (const layer of layers) {
    const { name, op, shape, weight, node } = layer;
    const choice = formats.get(node.output[0]);
    if (!choice || weight.view.dtype !== 'float32') {
      const reason = choice && `computes in ${weight.view.dtype}`;
      reports.push({ name, op, shape, status: choice ? 'skipped' : 'unchanged', reason });
      continue;
    }
    const stored = await writer.addLayer(layer, rescaled(choice.format, layer, choice.factors));
    const reason = plan.reasons.get(layer);
    const integer = reason === undefined;
    reports.push({ name, op, shape, status: 'changed', ...stored.report, integer, reason });
  }
  writer.write();
  return [...reports, ...skipped];
}

/** Given scales, after each output channel of the weight was multiplied by a factor. */
function rescaled(
  format: WeightFormat,
  { weight }: WeightLayer,
  factors: Float64Array | undefined,
): WeightFormat {
  const { scales } = format;
  if (!factors || !(scales instanceof Float64Array)) return format;
  // Channels of several groups share a scale: whatever it was, their factors differ.
  if (factors.length !== weight.rows) return { ...format, scales: 'max' };
  const own = (i: number) => scales[scales.length === 1 ? 0 : i];
  return { ...format, scales: factors.map((factor, i) => own(i) * Math.abs(factor) || 1) };
}

/** Writes the nodes of an integer graph. */
class QdqWriter {
  readonly #nodes: NodeProto[] = [];
  readonly #store: IntegerStore;
  /** Weights and biases by the node that reads them: the names that it is to read. */
  readonly #weights = new Map<NodeProto, { nodes: NodeProto[]; inputs: string[] }>();
  /** Names of scale and zero point by value. */
  readonly #grids = new Map<string, [scale: string, zeroPoint: string]>();
  /** Float values that integer nodes read: the value that was through uint8. */
  readonly #rounded = new Map<string, string>();

  constructor(
    readonly workspace: Workspace,
    readonly plan: IntegerPlan,
  ) {
    this.#store = new IntegerStore(workspace);
  }

  async addLayer(layer: WeightLayer, format: WeightFormat): Promise<IntegerWeight> {
    const { model } = this.workspace;
    const { node } = layer;
    const isInteger = this.plan.nodes.has(node);
    const bias = isInteger && node.input[2] ? await this.#bias(layer) : undefined;
    const inputScale = isInteger ? uint8Grid(this.#rangeOf(node.input[0])).scale : 0;
    const least = bias?.map((b) => Math.abs(b) / (inputScale * mostBiasCode));
    const quantized = await quantizeLayer(model, layer, format, { least });
    const stored = this.#store.add(layer, quantized, { bits: format.bits, dtype: 'int8' });
    const nodes = stored.node ? [stored.node] : [];
    const inputs = node.input.map((name, i) => (i === 1 ? stored.output : name));
    if (bias) {
      const made = this.#storeBias(node.input[2], bias, quantized, inputScale);
      nodes.push(made);
      inputs[2] = made.output[0];
    }
    this.#weights.set(node, { nodes, inputs });
    return stored;
  }

  /** [channels] */
  async #bias({ node, weight }: WeightLayer): Promise<Float64Array> {
    const view = this.workspace.constant(node, 2);
    if (!view) throw new Error('a bias that was there is gone');
    const values = await readTensorFloat32(this.workspace.model, view.tensor);
    return new Float64Array(weight.rows).map((_, i) => values[values.length === 1 ? 0 : i]);
  }

  #storeBias(
    wanted: string,
    bias: Float64Array,
    { scales: weightScales }: Quantized,
    inputScale: number,
  ): NodeProto {
    const { workspace } = this;
    const scales = Float32Array.from(weightScales, (s) => s * inputScale);
    const codes = Int32Array.from(bias, (b, i) =>
      roundHalfEven(b / scales[scales.length === 1 ? 0 : i]),
    );
    const bytes = new Uint8Array(codes.buffer);
    const shape = scales.length === 1 ? [] : [scales.length];
    const inputs = [
      workspace.store(`${wanted}_quantized`, 'int32', [codes.length], bytes),
      workspace.storeFloats(`${wanted}_scale`, scales, shape),
    ];
    const output = workspace.names.fresh(`${wanted}_dequantized`);
    return dequantizeNode(inputs, output, scales.length === 1 ? undefined : 0);
  }

  write(): void {
    const { workspace, plan } = this;
    const cut = new Set([...plan.nodes.values()].map((planned) => planned.cut));
    // In front of all others, because layers may share them.
    for (const { nodes } of this.#weights.values()) this.#nodes.push(...nodes);
    for (const node of topologicalOrder(workspace.graph)) {
      if (cut.has(node)) continue;
      const planned = plan.nodes.get(node);
      const weights = this.#weights.get(node);
      const own = weights ? { ...node, input: weights.inputs } : node;
      if (planned) this.#integer(own, planned);
      else this.#nodes.push(own);
    }
    workspace.commit(this.#nodes);
  }

  #integer(node: NodeProto, { node: original, output, range }: IntegerNode): void {
    const data = new Set(dataInputs(original));
    const input = node.input.map((name, i) => (data.has(i) ? this.#read(name) : name));
    const grid = range
      ? this.#grid(output, range)
      : integerKind(original) === 'moved'
        ? this.#grids.get(original.input[0])
        : undefined;
    if (!grid) {
      this.#nodes.push({ ...node, input });
      return;
    }
    // The value keeps its name where it is a float again, for whoever else reads it.
    const before = this.workspace.names.fresh(`${output}_unrounded`);
    this.#nodes.push({ ...node, input, output: [before] });
    this.#round(before, output, grid);
    this.#grids.set(output, grid);
    this.#rounded.set(output, output);
  }

  /** The name of a value as an integer node is to read it. */
  #read(name: string): string {
    const known = this.#rounded.get(name);
    if (known) return known;
    const grid = this.#grid(name, this.#rangeOf(name));
    const output = this.workspace.names.fresh(`${name}_dequantized`);
    this.#round(name, output, grid);
    this.#rounded.set(name, output);
    return output;
  }

  #round(from: string, to: string, grid: readonly string[]): void {
    const codes = this.workspace.names.fresh(`${to}_quantized`);
    this.#nodes.push(makeNode('QuantizeLinear', [from, ...grid], codes));
    this.#nodes.push(dequantizeNode([codes, ...grid], to));
  }

  /** Scale and zero point of a value, as scalars: the runtime takes no lists of one. */
  #grid(name: string, range: Range): [string, string] {
    const known = this.#grids.get(name);
    if (known) return known;
    const { scale, zeroPoint } = uint8Grid(range);
    const made: [string, string] = [
      this.workspace.storeFloats(`${name}_scale`, Float32Array.of(scale), []),
      this.workspace.store(`${name}_zero_point`, 'uint8', [], Uint8Array.of(zeroPoint)),
    ];
    this.#grids.set(name, made);
    return made;
  }

  #rangeOf(name: string): Range {
    const range = this.plan.rangeOf(name);
    if (!range) throw new Error(`no range of ${name}`);
    return range;
  }
}
