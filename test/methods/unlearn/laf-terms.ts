import { gradients } from '../../../src/autodiff/gradients.js';
import type { LossGraph } from '../../../src/autodiff/loss-graph.js';
import type { Rows } from '../../../src/methods/unlearn/laf/rows.js';
import { Model, type ModelProto } from '../../../src/onnx/index.js';
import type { Feeds } from '../../../src/runtime/session.js';
import { floats, node, model as proto, value } from '../../support/protos.js';

/** A loss of the value `e`, and its gradient by it: of a model whose representations are parameters. */
export async function byRepresentations({ values, width }: Rows, loss: LossGraph, inputs: Feeds) {
  const rows = values.length / width;
  const graph = proto({
    input: [value('x', ['n', 1])],
    initializer: [
      floats('p', [rows, width], values),
      floats('zero', [1, width], new Float32Array(width)),
    ],
    node: [node('MatMul', ['x', 'zero'], ['none']), node('Add', ['none', 'p'], ['e'])],
    output: [value('e', ['n', width])],
  });
  const model = await gradients(new Model(graph as ModelProto), {
    loss,
    parameters: ({ name }) => name === 'p',
  });
  const x = { dtype: 'float32' as const, dims: [rows, 1], data: new Float32Array(rows) };
  const step = await model.run({ x }, { inputs });
  await model.release();
  return { loss: step.loss, gradient: step.gradients.get('p') as Float32Array };
}
