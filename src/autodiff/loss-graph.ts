import { dataError, modelError } from '../errors.js';
import { mainGraph } from '../graph/bodies.js';
import { int, makeNode, tensorType } from '../graph/build.js';
import { dtypeCode, type ModelProto, type NodeProto, type TensorProto } from '../onnx/index.js';
import type { Feeds } from '../runtime/session.js';
import type { Head } from './gradient-graph.js';
import type { Tape } from './tape.js';

/**
 * A loss as a piece of graph, appended to the training copy of a model and differentiated with it. A `Tape`
 * with a prefix of its own writes one.
 */
export interface LossGraph {
  /** They read values of the model by name, floats in float32 or, of a float64 model, in that. Only forms of ops that are alike from opset 17 on. */
  nodes: readonly NodeProto[];
  initializers: readonly TensorProto[];
  /** What it is fed besides the model's inputs, in float32; see `Target.inputs`. */
  inputs: readonly string[];
  /** L, the value that is differentiated: a float of shape []. */
  loss: string;
  /** Other values to see after each run: see `GradientStep.shown`. */
  shown: readonly string[];
}

/** Several losses in one, of which each batch takes one. */
export interface Alternatives<Name extends string> extends LossGraph {
  /** What is fed, besides the inputs of all of them, to take one. */
  take(name: Name): Feeds;
}

/**
 * Losses that take turns: in one graph they need the memory of one, as what is in front of them is there
 * once, and each has its turn by a weight of 1, the others of 0.
 * @param losses by name; the names of their nodes must differ
 */
export function alternatives<Name extends string>(
  losses: Record<Name, LossGraph>,
): Alternatives<Name> {
  const names = Object.keys(losses) as Name[];
  const all = names.map((name) => losses[name]);
  const weight = (name: Name) => `resect/take/${name}`;
  const wide = (value: string, output: string) =>
    makeNode('Cast', [value], output, [int('to', dtypeCode('float64'))]);
  const terms = names.flatMap((name) => [
    wide(losses[name].loss, `${weight(name)}/loss`),
    wide(weight(name), `${weight(name)}/weight`),
    makeNode('Mul', [`${weight(name)}/loss`, `${weight(name)}/weight`], `${weight(name)}/term`),
  ]);
  const loss = 'resect/taken';
  const sum = makeNode(
    'Sum',
    names.map((name) => `${weight(name)}/term`),
    loss,
  );
  return {
    nodes: [...all.flatMap(({ nodes }) => nodes), ...terms, sum],
    initializers: all.flatMap(({ initializers }) => initializers),
    inputs: [...new Set(all.flatMap(({ inputs }) => inputs)), ...names.map(weight)],
    loss,
    shown: all.flatMap(({ shown }) => shown),
    take: (taken) =>
      Object.fromEntries(
        names.map((name) => [
          weight(name),
          { dtype: 'float32', dims: [], data: Float32Array.of(name === taken ? 1 : 0) },
        ]),
      ),
  };
}

/** The model with the loss in its graph. */
export function withLossGraph(model: ModelProto, loss: LossGraph): ModelProto {
  const graph = mainGraph(model);
  const floats = tensorType(dtypeCode('float32'));
  return {
    ...model,
    graph: {
      ...graph,
      node: [...graph.node, ...loss.nodes],
      initializer: [...graph.initializer, ...loss.initializers],
      input: [...graph.input, ...loss.inputs.map((name) => ({ name, type: floats }))],
    },
  };
}

export function graphHead(t: Tape, { loss, shown }: LossGraph): Head {
  if (t.dims(loss).length > 0)
    throw modelError('The loss is not a single number.', {
      where: `value "${loss}"`,
      expected: '[]',
      got: `[${t.dims(loss).join(', ')}]`,
    });
  return {
    seeds: new Map([[loss, t.scalar(1, loss)]]),
    inputs: [],
    outputs: [loss, ...shown],
  };
}

/**
 * What the loss is fed.
 * @throws {ResectError} exit 6 when something is missing
 */
export function lossFeeds({ inputs }: LossGraph, given: Feeds = {}): Feeds {
  return Object.fromEntries(
    inputs.map((name) => {
      if (given[name]?.dtype === 'float32') return [name, given[name]];
      throw dataError('The loss is not fed what it needs.', {
        where: `input ${name}`,
        expected: 'float32',
        got: given[name]?.dtype ?? 'nothing',
      });
    }),
  );
}
