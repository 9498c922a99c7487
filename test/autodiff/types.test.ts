import { inferTypes } from '../../src/autodiff/types.js';
import type { ModelProto, NodeProto } from '../../src/onnx/index.js';
import { node } from '../support/protos.js';

const model = (nodes: NodeProto[]): ModelProto => ({
  irVersion: 8,
  functions: [],
  opsetImport: [{ version: 17 }],
  graph: {
    name: 'g',
    node: nodes,
    initializer: [],
    input: [
      {
        name: 'x',
        type: { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 2 }, { dimValue: 3 }] } } },
      },
      { name: 's', type: { tensorType: { elemType: 7, shape: { dim: [{ dimParam: 'rank' }] } } } },
    ],
    output: [{ name: 'y' }],
    valueInfo: [],
  },
});

test('a scalar has no dims, a value of unknown rank no shape', async () => {
  const types = await inferTypes(
    model([
      node('ReduceSum', ['x'], ['total'], { keepdims: 0 }),
      node('Reshape', ['x', 's'], ['free']),
      node('Relu', ['free'], ['y']),
      node('Relu', ['x'], ['z']),
    ]),
  );
  expect(types.get('total')).toEqual({ dtype: 'float32', dims: [] });
  expect(types.get('free')).toEqual({ dtype: 'float32' });
  expect(types.get('y')).toEqual({ dtype: 'float32' });
  expect(types.get('z')).toEqual({ dtype: 'float32', dims: [2, 3] });
});
