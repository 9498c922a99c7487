import { writeParameters } from '../../../src/methods/compress/write-parameters.js';
import {
  encodeFloat32,
  encodeModel,
  type Model,
  type ModelProto,
  makeTensor,
  parseModel,
  readTensorFloat32,
  tensorInfo,
} from '../../../src/onnx/index.js';
import { network } from '../../graph/channels/models.js';
import { model as makeModel, node, value, weight } from '../../support/protos.js';
import { distance } from '../../support/run.js';
import { compressed, outputsOf, randomized, valuesOf } from './support.js';

const read = (proto: ModelProto): Model => parseModel(encodeModel(proto));
const nodeOf = ({ proto }: Model, output: string) =>
  proto.graph!.node.find((n) => n.output[0] === output)!;
const ones = (n: number, x = 1) => new Float64Array(n).fill(x);

/** Two products with one matrix, which a third node reads, too. */
const shared = () =>
  makeModel({
    node: [
      node('MatMul', ['x', 'w'], ['a']),
      node('MatMul', ['x', 'w'], ['b']),
      node('Add', ['a', 'b'], ['sum']),
      node('ReduceMax', ['w'], ['top'], { keepdims: 0 }),
      node('Add', ['sum', 'top'], ['y']),
    ],
    initializer: [weight('w', [4, 3])],
    input: [value('x', [2, 4])],
    output: [{ name: 'y' }],
  });

test('what other nodes read stays as it was for them', async () => {
  const model = read(shared());
  const before = await valuesOf(model.proto, 'w');
  writeParameters(model, [{ output: 'a', input: 1, shape: [4, 3], values: ones(12) }]);
  const [, own] = nodeOf(model, 'a').input;
  expect(own).not.toBe('w');
  expect(await valuesOf(model.proto, own)).toEqual(new Float32Array(12).fill(1));
  expect(nodeOf(model, 'b').input).toEqual(['x', 'w']);
  expect(await valuesOf(model.proto, 'w')).toEqual(before);
  await outputsOf(model.proto);
});

test('nodes for which a tensor changes alike share it still', () => {
  const model = read(shared());
  const same = (output: string, x: number) => ({
    ...{ output, input: 1, shape: [4, 3] },
    values: ones(12, x),
  });
  writeParameters(model, [same('a', 1), same('b', 1)]);
  expect(nodeOf(model, 'a').input).toEqual(nodeOf(model, 'b').input);
  writeParameters(model, [same('a', 1), same('b', 2)]);
  expect(nodeOf(model, 'a').input).not.toEqual(nodeOf(model, 'b').input);
});

test('a weight of its own keeps its name, in another shape', async () => {
  const proto = network((n) => n.conv(n.conv('x', 3, 4), 4, 2));
  const model = read(proto);
  writeParameters(model, [
    { output: 'conv0', input: 1, shape: [2, 3, 3, 3], values: ones(54) },
    { output: 'conv0', input: 2, shape: [2], values: ones(2) },
    { output: 'conv1', input: 1, shape: [2, 2, 3, 3], values: ones(36) },
  ]);
  expect(nodeOf(model, 'conv0').input).toEqual(['x', 'w0', 'w1']);
  const names = model.proto.graph!.initializer.map(({ name }) => name);
  expect(names.sort()).toEqual(['w0', 'w1', 'w2', 'w3']);
  const { conv1 } = await outputsOf(model.proto);
  expect(conv1.dims).toEqual([2, 2, 8, 8]);
});

test('a bias where there was none: an input of Conv and Gemm, an Add behind MatMul', async () => {
  const proto = network((n) => {
    const conv = n.op('Conv', ['x', n.weight([4, 3, 8, 8])]);
    const gemm = n.op('Gemm', [n.op('Flatten', [conv]), n.weight([4, 5])]);
    return n.op('MatMul', [gemm, n.weight([5, 2])]);
  });
  const model = read(proto);
  const before = await outputsOf(proto);
  writeParameters(model, [{ output: 'matmul3', input: 2, shape: [2], values: ones(2, 0.5) }]);
  const { matmul3 } = await outputsOf(model.proto);
  const moved = Array.from(before.matmul3.data, Number).map((x) => Math.fround(x + 0.5));
  expect(Array.from(matmul3.data, Number)).toEqual(moved);
  expect(nodeOf(model, 'matmul3').opType).toBe('Add');
  writeParameters(model, [
    { output: 'conv0', input: 2, shape: [4], values: ones(4) },
    { output: 'gemm2', input: 2, shape: [5], values: ones(5) },
  ]);
  for (const output of ['conv0', 'gemm2']) {
    const [, w, bias] = nodeOf(model, output).input;
    expect(bias).toBe(`${w}_bias`);
  }
  await outputsOf(model.proto);
});

/** The model in half precision. */
async function halved(proto: ModelProto): Promise<ModelProto> {
  const source = read(proto);
  const initializer = await Promise.all(
    source.proto.graph!.initializer.map(async (tensor) => {
      const { name, dtype, shape } = tensorInfo(tensor);
      if (dtype !== 'float32') return tensor;
      const bytes = encodeFloat32(
        Float32Array.from(await readTensorFloat32(source, tensor)),
        'float16',
      );
      return makeTensor({ name, dtype: 'float16', shape, bytes });
    }),
  );
  const input = [value('x', [2, 3, 8, 8], 'float16')];
  return { ...proto, graph: { ...proto.graph!, initializer, input } };
}

test('half precision stays half precision', async () => {
  const plain = randomized(
    network((n) => n.head(n.convBnRelu(n.convBnRelu('x', 3, 10), 10, 8), 8)),
    2,
  );
  const source = await halved(plain);
  for (const method of ['gauss', 'drop'] as const) {
    const { proto } = await compressed(source, { ratio: 0.4, method });
    const types = proto.graph!.initializer.map((tensor) => tensorInfo(tensor).dtype);
    expect(new Set(types)).toEqual(new Set(['float16']));
    const single = await compressed(plain, { ratio: 0.4, method });
    const [got] = Object.values(await outputsOf(proto));
    const [want] = Object.values(await outputsOf(single.proto));
    expect(distance(want, got)).toBeLessThan(0.02);
  }
  const integers = await compressed(source, { bits: 8, format: 'weight-only' });
  for (const { bits, reason } of integers.surgery.layers) {
    expect(bits).toBeUndefined();
    expect(reason).toMatch(/float16/);
  }
});
