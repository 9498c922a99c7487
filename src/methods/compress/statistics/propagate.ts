/**
 * Moments of every activation's channels, carried through a graph from its inputs to its layers: by the
 * formulas of maths/, from parameters alone.
 */
import { Constants } from '../../../graph/constants.js';
import type { Graph } from '../../../graph/graph.js';
import { opName } from '../../../graph/nodes.js';
import { dependencies, topologicalOrder } from '../../../graph/topology.js';
import type { Model, NodeProto } from '../../../onnx/index.js';
import { compressedStep, gaussianStep, type Step } from '../maths/gaussian-step.js';
import { range } from '../maths/mixing.js';
import {
  type CompressedMoments,
  type Moments,
  type Signal,
  standardInput,
} from '../maths/moments.js';
import { type ChannelTensor, ChannelValues, LostSignal, lose } from './channel-tensor.js';
import { constantView, readView } from './constants.js';
import { inputAxis } from './input-axis.js';
import { isLayer, keptRows, type LayerNode, readLayer, type Source } from './layers.js';
import type { Shapes } from './layout.js';
import type { RuleContext } from './rule.js';
import { rules } from './rules/index.js';
import { rebased } from './signals.js';

/** A layer that the walk has come to, in the network as it was read. */
export interface LayerVisit extends LayerNode {
  /** Of the tensor that it reads; `compressed` is absent while nothing in front of it has changed. */
  input: Signal;
  /** The channels of its input that the compressed network still has; absent when it has all. */
  inputKept?: Uint32Array;
  /** Why `input` is not what comes in but independent channels of unit variance; absent when it is. */
  assumed?: string;
  /** What the original layer makes of its input. */
  step: Step;
}

/** What a layer has become: `kept` of its `CompressedLayer`, and the moments of its `CompressedStep`. */
export interface Compressed {
  kept: Uint32Array;
  preActivation: CompressedMoments;
}

export interface PropagateOptions {
  shapes: Shapes;
  /** Moments of the graph's inputs; otherwise independent channels of mean 0 and variance 1. */
  inputs?: ReadonlyMap<string, Moments>;
  /** Moments, by what was measured, of tensors that layers read; they take the place of carried ones. */
  measured?: ReadonlyMap<string, Moments>;
  /**
   * What the original layers make of their inputs, by the names of their outputs. A walk takes from it
   * what is there and adds what is not: walks of one model, with the same `inputs` and `measured`, that
   * share one spare each other half of the work. It grows by N² numbers per layer of N outputs.
   */
  steps?: Map<string, Step>;
  /**
   * Called for every layer, in topological order; what it returns is what the layers behind it get to see
   * of the compressed network. `undefined` leaves the layer as it is, which it can be only as long as
   * its input has all its channels, or when it is depthwise.
   */
  onLayer(visit: LayerVisit): Compressed | undefined | Promise<Compressed | undefined>;
}

/** Correlation of neighbouring positions of an input, of which no layer has told anything yet. */
const INPUT_R = 0.7;

/** Beyond it a covariance is larger than 128 MB, and a step takes minutes. */
const MOST_CHANNELS = 4096;

/** A layer that the walk could not read, and why. */
export interface UnreadLayer {
  node: NodeProto;
  reason: string;
}

/**
 * Walks the main graph. Moments are dropped when their last reader has passed. Where they are not known
 * any more (an op that is not followed), the next layer starts again from independent channels, and its
 * visit says so.
 * @param graph of `model`, or of a copy that shares its tensors
 * @returns layers that could not be read, and were not visited
 * @throws {ResectError} exit 5 for a cycle, parameters that are not finite, negative variances
 */
export async function propagate(
  model: Model,
  graph: Graph,
  options: PropagateOptions,
): Promise<UnreadLayer[]> {
  const walk = new Walk({ model, graph, constants: new Constants(graph) }, options);
  const order = topologicalOrder(graph.root.graph);
  const lastUse = new Map<string, number>();
  for (const [i, node] of order.entries()) {
    for (const name of dependencies(node)) lastUse.set(name, i);
  }
  walk.start();
  for (const [i, node] of order.entries()) {
    await walk.visit(node);
    for (const name of dependencies(node)) if (lastUse.get(name) === i) walk.free(name);
  }
  return walk.unread;
}

class Walk {
  readonly unread: UnreadLayer[] = [];
  readonly #source: Source;
  readonly #options: PropagateOptions;
  /** What is known of the tensors that are still to be read, or why nothing is. */
  readonly #tensors = new Map<string, ChannelTensor | { reason: string }>();

  constructor(source: Source, options: PropagateOptions) {
    this.#source = source;
    this.#options = options;
  }

  start(): void {
    const { graph } = this.#source;
    for (const value of graph.root.values.values()) {
      if (!value.isInput || value.initializer) continue;
      const dims = this.#options.shapes.get(value.name)?.dims;
      if (!dims?.length) continue;
      const axis = inputAxis(graph, value, dims.length);
      const given = this.#options.inputs?.get(value.name);
      if (given && given.mean.length !== dims[axis]) {
        throw new Error(
          `${given.mean.length} means for the ${dims[axis]} channels of ${value.name}`,
        );
      }
      if (dims[axis] > MOST_CHANNELS) continue;
      const values = ChannelValues.of(
        { signal: { original: given ?? standardInput(dims[axis]) } },
        INPUT_R,
      );
      this.#tensors.set(value.name, { values, layout: { dims, axis } });
    }
  }

  free(name: string): void {
    this.#tensors.delete(name);
  }

  async visit(node: NodeProto): Promise<void> {
    const { graph, constants } = this.#source;
    const value = graph.root.values.get(node.output[0] ?? '');
    // The bias and the BatchNormalization behind a layer belong to it.
    if (!value || this.#tensors.has(value.name) || constants.trace(value)) return;
    try {
      if (isLayer(this.#source, node)) return await this.#layer(node);
      const rule = rules.get(opName(node));
      if (!rule) lose(`${opName(node)} is not followed`);
      const tensors = await rule(this.#context(node));
      for (const [i, tensor] of tensors.entries()) this.#set(node.output[i], tensor);
    } catch (error) {
      if (!(error instanceof LostSignal)) throw error;
      if (isLayer(this.#source, node)) this.unread.push({ node, reason: error.message });
      for (const name of node.output) this.#tensors.set(name, { reason: error.message });
    }
  }

  #set(name: string, tensor: ChannelTensor): void {
    const measured = this.#options.measured?.get(name);
    this.#tensors.set(name, measured ? remeasured(tensor, measured) : tensor);
  }

  /** What is known of a tensor of the main graph, or why nothing is. */
  #known(name: string): ChannelTensor | { reason: string } {
    return this.#tensors.get(name) ?? { reason: `nothing is known of "${name}"` };
  }

  #context(node: NodeProto): RuleContext {
    const { model, graph, constants } = this.#source;
    return {
      node,
      source: this.#source,
      tensor: (index) => {
        const known = this.#known(node.input[index] ?? '');
        return 'values' in known ? known : lose(known.reason);
      },
      constant: async (index) => {
        const view = constantView(graph, constants, node, index);
        return view && readView(model, view);
      },
      dims: (name) =>
        this.#options.shapes.get(name)?.dims ?? lose(`the shape of "${name}" is not known`),
    };
  }

  async #layer(node: NodeProto): Promise<void> {
    const known = this.#known(node.input[0] ?? '');
    const tensor = 'values' in known ? known : undefined;
    const layer = await readLayer(this.#source, node, tensor);
    const { filters } = layer.layer;
    const most = Math.max(filters.inputs, filters.outputs);
    if (most > MOST_CHANNELS) lose(`${most} channels, more than ${MOST_CHANNELS}`);
    const from = this.#input(layer, known);
    const { steps } = this.#options;
    const step = steps?.get(layer.output) ?? gaussianStep(from.input.original, layer.layer);
    steps?.set(layer.output, step);
    const visit: LayerVisit = { ...layer, ...from, step };
    const compressed = (await this.#options.onLayer(visit)) ?? untouched(visit);
    const dims = this.#options.shapes.get(layer.output)?.dims;
    if (!dims) {
      const reason = `the shape of "${layer.output}" is not known`;
      this.#tensors.set(layer.output, { reason });
      return;
    }
    const signal: Signal = {
      original: step.preActivation,
      ...(compressed && { compressed: compressed.preActivation }),
    };
    const kept = compressed?.kept.length === filters.outputs ? undefined : compressed?.kept;
    const axis = node.opType === 'MatMul' ? dims.length - 1 : 1;
    const values = ChannelValues.of({ signal, kept }, step.r);
    this.#set(layer.output, { values, layout: { dims, axis } });
  }

  #input(
    { node, layer: { filters } }: LayerNode,
    known: ChannelTensor | { reason: string },
  ): Pick<LayerVisit, 'input' | 'inputKept' | 'assumed'> {
    const restart = (reason: string) => {
      const measured = this.#options.measured?.get(node.input[0] ?? '');
      return measured
        ? { input: { original: measured } }
        : { input: { original: standardInput(filters.inputs) }, assumed: reason };
    };
    if ('reason' in known) return restart(known.reason);
    const { values } = known;
    if (values.channels !== filters.inputs)
      lose(`a weight for ${filters.inputs} channels, and ${values.channels} come in`);
    try {
      return { input: values.signal, ...(values.kept && { inputKept: values.kept }) };
    } catch (error) {
      if (error instanceof LostSignal) return restart(error.message);
      throw error;
    }
  }
}

/** What becomes of a layer that was not changed itself, when its input was. */
function untouched({ name, layer, depthwise, input, inputKept, step }: LayerVisit) {
  if (!input.compressed) return undefined;
  const { filters } = layer;
  if (!inputKept) {
    const kept = range(filters.outputs);
    return { kept, ...compressedStep(input, layer, step, { filters, kept }) };
  }
  if (!depthwise) throw new Error(`${name}: its input lost channels, and it was left as it is`);
  const each = filters.outputs / filters.inputs;
  const kept = Uint32Array.from({ length: inputKept.length * each }, (_, m) => {
    return inputKept[Math.floor(m / each)] * each + (m % each);
  });
  const rows = keptRows(filters, kept, inputKept.length);
  return { kept, ...compressedStep(input, layer, step, { filters: rows, kept }) };
}

function remeasured({ values, layout }: ChannelTensor, measured: Moments): ChannelTensor {
  const signal = rebased(values.signal, measured);
  return { values: ChannelValues.of({ signal, kept: values.kept }, values.r), layout };
}
