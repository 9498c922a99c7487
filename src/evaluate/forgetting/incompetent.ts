import { uniform } from '../../data/index.js';
import { Constants, isView } from '../../graph/constants.js';
import { inlineFunctions } from '../../graph/functions.js';
import { Graph } from '../../graph/graph.js';
import { opName } from '../../graph/nodes.js';
import { findParameters, type Parameter } from '../../graph/parameters.js';
import { encodeFloat32, type Model, type TensorProto, tensorInfo } from '../../onnx/index.js';

/**
 * Gives a model random weights, in memory: a network of the same shape that knows nothing. Weights are
 * uniform within 1/sqrt(fan in), scales of normalisations 1, everything else that is learnt 0;
 * running statistics are those of a new network, mean 0 and variance 1.
 */
export function forgetEverything(model: Model, seed: number): void {
  const graph = new Graph(inlineFunctions(model.proto));
  const constants = new Constants(graph);
  const random = uniform(seed);
  for (const parameter of findParameters(graph, constants)) {
    if (parameter.skip) continue;
    const bound = weightBound(parameter);
    const scale = /Normalization$/.test(parameter.op) && parameter.input === 1;
    set(model, parameter.tensor, () => (bound > 0 ? (2 * random() - 1) * bound : scale ? 1 : 0));
  }
  for (const scope of graph.scopes) {
    for (const node of scope.graph.node) {
      if (opName(node) !== 'BatchNormalization') continue;
      for (const [input, value] of [
        [3, 0],
        [4, 1],
      ]) {
        const read = graph.input(scope, node, input);
        const view = read && constants.trace(read);
        if (isView(view)) set(model, view.tensor, () => value);
      }
    }
  }
}

/** 1/sqrt(fan in) of a weight; 0 for biases and scales. */
function weightBound({ shape, op, input }: Parameter): number {
  if (shape.filter((d) => d > 1).length < 2) return 0;
  const elements = shape.reduce((a, b) => a * b, 1);
  const inFirst = op === 'MatMul' && input === 1;
  return 1 / Math.sqrt(inFirst ? elements / shape[shape.length - 1] : elements / shape[0]);
}

function set(model: Model, tensor: TensorProto, value: () => number): void {
  const { dtype, elements } = tensorInfo(tensor);
  const values = Float32Array.from({ length: elements }, value);
  model.edits.set(tensor, () =>
    dtype === 'float64'
      ? new Uint8Array(Float64Array.from(values).buffer)
      : encodeFloat32(values, dtype),
  );
}
