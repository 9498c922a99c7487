import { modelInputs, modelOutputs } from '../../src/graph/interface.js';
import { dtypeCode, type TypeProto } from '../../src/onnx/index.js';
import { model, node, value, weight } from '../support/protos.js';

const tensorType = (elemType: number): TypeProto => ({ tensorType: { elemType } });

test('inputs are those that nothing in the model provides', () => {
  const m = model({
    input: [value('x', ['batch', 3, '', 8]), value('w', [2]), value('n', [], 'int64')],
    initializer: [weight('w', [2])],
    node: [node('Add', ['x', 'w'], ['y'])],
    output: [value('y', [2], 'float16')],
  });
  expect(modelInputs(m)).toEqual([
    { name: 'x', dtype: 'float32', dims: ['batch', 3, '', 8] },
    { name: 'n', dtype: 'int64', dims: [] },
  ]);
  expect(modelOutputs(m)).toEqual([{ name: 'y', dtype: 'float16', dims: [2] }]);
});

test('an unknown dimension and an unknown rank', () => {
  const m = model({
    input: [
      { name: 'a', type: { tensorType: { elemType: 1, shape: { dim: [{}, { dimValue: 0 }] } } } },
      { name: 'b', type: tensorType(1) },
      { name: 'c' },
    ],
  });
  expect(modelInputs(m)).toEqual([
    { name: 'a', dtype: 'float32', dims: ['', 0] },
    { name: 'b', dtype: 'float32', dims: [] },
    { name: 'c', dtype: 'unknown', dims: [] },
  ]);
});

test('types that are no tensors are described', () => {
  const float = dtypeCode('float32');
  const map: TypeProto = { mapType: { keyType: dtypeCode('int64'), valueType: tensorType(float) } };
  const types: [TypeProto, string][] = [
    [{ sequenceType: { elemType: map } }, 'sequence(map(int64, float32))'],
    [{ optionalType: { elemType: tensorType(float) } }, 'optional(float32)'],
    [{ sparseTensorType: { elemType: float } }, 'sparse(float32)'],
    [tensorType(99), 'unknown'],
  ];
  const m = model({ output: types.map(([type], i) => ({ name: `${i}`, type })) });
  expect(modelOutputs(m).map(({ dtype }) => dtype)).toEqual(types.map(([, text]) => text));
});
