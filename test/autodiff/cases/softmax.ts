import { node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

export const cases: GradientCase[] = ['Softmax', 'LogSoftmax'].flatMap((op) => [
  ...[-1, 0, 1, -2].map((axis) => ({
    name: `${op} axis ${axis}`,
    nodes: [node(op, ['x'], ['y'], { axis })],
    inputs: { x: { dims: [2, 3, 4], range: [-3, 3] as [number, number] } },
  })),
  ...[[5], [2, 1]].map((dims) => ({
    name: `${op} [${dims}]`,
    nodes: [node(op, ['x'], ['y'])],
    inputs: { x: { dims } },
    opset: 25,
  })),
]);
