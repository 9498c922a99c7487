import { dataError, modelError } from '../errors.js';
import { mainGraph } from '../graph/bodies.js';
import { tensorType } from '../graph/build.js';
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
