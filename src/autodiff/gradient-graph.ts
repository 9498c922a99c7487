import { tensorType } from '../graph/build.js';
import { dependencies, removeDeadNodes, topologicalOrder } from '../graph/topology.js';
import { dtypeCode, type GraphProto, type ModelProto } from '../onnx/index.js';
import { mul, reduceSum } from './emit.js';
import { reverse } from './reverse.js';
import { Tape, type TensorType } from './tape.js';
import { inferTypes } from './types.js';

/** A graph that computes a loss's gradients, made from the graph that computes what the loss is of. */
export interface GradientGraph {
  /** Its outputs: those of `head`, then one gradient for each entry of `gradients`. */
  model: ModelProto;
  /** Output that holds dL/dv, by v. Values that the loss does not depend on are left out. */
  gradients: Map<string, string>;
}

/** What a loss adds to a graph. */
export interface Head {
  /** dL/dv by v, the values that the loss is computed from. */
  seeds: Map<string, string>;
  /** Further inputs of the graph. */
  inputs: { name: string; type: TensorType }[];
  /** Values to put out. */
  outputs: string[];
}

/**
 * Appends the reverse pass to a graph.
 * @param model of opset 17 or newer, float32 or float64, with the dims of its inputs fixed and
 *   constants folded; its nodes may gain outputs
 * @param wrt values to differentiate by: inputs, or whatever else the graph computes
 * @param head makes the loss, or merely its seeds
 * @param squares the number of samples in the batch, to put out Σ over the samples of (dL/dv)² instead
 * @throws {NoGradientError} where an op without a rule is in the way
 * @throws {Refusal} where samples cannot be told apart for their squares
 */
export async function gradientGraph(
  model: ModelProto,
  wrt: readonly string[],
  head: (t: Tape) => Head,
  { squares }: { squares?: number } = {},
): Promise<GradientGraph> {
  const source = model.graph;
  if (!source) throw new Error('a model without graph has no gradients');
  const tape = new Tape(await inferTypes(model), source.initializer);
  const { seeds, inputs, outputs } = head(tape);
  const order = topologicalOrder(source);
  const gradients = reverse(tape, order, seeds, wrt, squares);
  if (squares !== undefined) {
    for (const [name, g] of gradients)
      gradients.set(name, reduceSum(tape, mul(tape, g, g), [0], false));
  }
  const graph = {
    ...source,
    node: [...order, ...tape.nodes],
    initializer: [...source.initializer, ...tape.initializers],
    valueInfo: [],
    input: [
      ...source.input,
      ...inputs.map(({ name, type }) => ({
        name,
        type: tensorType(dtypeCode(type.dtype), type.dims),
      })),
    ],
    output: [...new Set([...outputs, ...gradients.values()])].map((name) => ({ name })),
  };
  removeDeadNodes(graph);
  removeUnreadInputs(graph);
  return { model: { ...model, opsetImport: withContrib(model), graph }, gradients };
}

/** Drops, in place, inputs that nothing reads: they would have to be fed. */
export function removeUnreadInputs(graph: GraphProto): void {
  const read = new Set([
    ...graph.node.flatMap(dependencies),
    ...graph.output.map(({ name }) => name),
  ]);
  graph.input = graph.input.filter(({ name }) => read.has(name));
}

function withContrib({ opsetImport }: ModelProto): ModelProto['opsetImport'] {
  const domain = 'com.microsoft';
  return opsetImport.some((o) => o.domain === domain)
    ? opsetImport
    : [...opsetImport, { domain, version: 1 }];
}
