import { removeDeadNodes, topologicalOrder } from '../../../graph/topology.js';
import {
  dtypeCode,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from '../../../onnx/index.js';
import { defaultOpset } from '../../../runtime/instrument.js';
import type { CoefficientRule } from '../coefficient-rule.js';
import { type CoefficientValues, emitCoefficient } from './coefficient-graph.js';
import { Emitter } from './emitter.js';
import { copyNodes, type Pair, renaming } from './pair.js';
import type { Scores } from './scores.js';

/** Both models on the same input. */
interface BothModels {
  /** What a value of the expert's graph is called where the expert computes it. */
  expert: ReadonlyMap<string, string>;
  /** What it is called where the generalist does. */
  generalist: ReadonlyMap<string, string>;
  /** Nodes that both share, and those of the branches. */
  nodes: NodeProto[];
}

/** What the dynamic graphs have in common: both models, and the coefficient. */
export interface Branches extends BothModels {
  emitter: Emitter;
  coefficient: CoefficientValues;
}

function bothModels({ names, weights, ownNodes, sharedNodes }: Pair): BothModels {
  const expert = renaming(names, ownNodes, '@e');
  const generalist = renaming(names, ownNodes, '@g', weights);
  return {
    expert,
    generalist,
    nodes: [
      // Shapes of what differs are the same in both, and are those of the expert's.
      ...copyNodes(sharedNodes, expert, ''),
      ...copyNodes(ownNodes, expert, '@e'),
      ...copyNodes(ownNodes, generalist, '@g'),
    ],
  };
}

/** A model that puts out the scores of both; and what it calls them. */
export function observingModel(
  pair: Pair,
  scores: Scores,
): { proto: ModelProto; expert: string; generalist: string } {
  const { expert, generalist, nodes } = bothModels(pair);
  const names = [expert, generalist].map((branch) => branch.get(scores.name) ?? scores.name);
  const graph = assembled(pair, nodes, []);
  graph.output = [...new Set(names)].map((name) => ({ name }));
  removeDeadNodes(graph);
  return { proto: { ...pair.model.proto, graph }, expert: names[0], generalist: names[1] };
}

/**
 * Emits both branches and the coefficient that follows from their scores.
 * @param perBatch one coefficient for the batch; otherwise one a sample
 */
export function emitBranches(
  pair: Pair,
  scores: Scores,
  rule: CoefficientRule,
  perBatch: boolean,
): Branches {
  const both = bothModels(pair);
  const { expert, generalist } = both;
  const emitter = new Emitter(pair.names, defaultOpset(pair.model.proto));
  const called = (branch: ReadonlyMap<string, string>) => branch.get(scores.name) ?? scores.name;
  const coefficient = emitCoefficient(
    emitter,
    scores,
    { generalist: called(generalist), expert: called(expert) },
    rule,
    perBatch,
  );
  return { ...both, emitter, coefficient };
}

/** Puts the finished graph into the model. What nothing reads is left out. */
export function commit(
  pair: Pair,
  { emitter, nodes, coefficient }: Branches,
  merged: readonly NodeProto[],
  { outputs }: { outputs: boolean },
): void {
  const { model, names } = pair;
  const output = [...pair.graph.output];
  if (outputs)
    for (const [name, value] of [
      ['lambda', coefficient.lambda],
      ['js', coefficient.js],
    ]) {
      const free = names.fresh(name);
      emitter.emit('Identity', [value], [], free);
      const elemType = dtypeCode('float32');
      output.push({ name: free, type: { tensorType: { elemType, shape: { dim: [{}] } } } });
    }
  const graph = assembled(pair, [...nodes, ...emitter.nodes, ...merged], emitter.initializers);
  graph.output = output;
  removeDeadNodes(graph);
  const defined = new Set(graph.node.flatMap((node) => node.output));
  graph.valueInfo = graph.valueInfo.filter(({ name = '' }) => defined.has(name));
  model.proto.graph = graph;
}

/** The pair's graph with these nodes, sorted, and further initializers. */
function assembled(
  pair: Pair,
  node: NodeProto[],
  initializers: readonly TensorProto[],
): GraphProto {
  const initializer = [...pair.initializers, ...initializers];
  const graph = { ...pair.graph, node, initializer };
  return { ...graph, node: topologicalOrder(graph) };
}
