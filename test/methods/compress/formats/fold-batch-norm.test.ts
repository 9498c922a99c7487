import { foldBatchNorm } from '../../../../src/methods/compress/formats/fold-batch-norm.js';
import type { Model } from '../../../../src/onnx/index.js';
import { floats, node } from '../../../support/protos.js';
import {
  float32,
  largestDifference,
  network,
  noise,
  normInputs,
  normParameters,
  opTypes,
  outputOf,
  stored,
} from './helpers.js';

const norm = (input: string, output: string, prefix = 'bn') =>
  node('BatchNormalization', normInputs(input, prefix), [output]);

interface Case {
  title: string;
  op: string;
  weight: number[];
  channels: number;
  dims: number[];
  attributes?: Record<string, number>;
  biased?: boolean;
  opset?: number;
}

const cases: Case[] = [
  { title: 'Conv', op: 'Conv', weight: [5, 3, 3, 3], channels: 5, dims: [2, 3, 7, 7] },
  {
    title: 'Conv with bias',
    op: 'Conv',
    weight: [5, 3, 3, 3],
    channels: 5,
    dims: [2, 3, 7, 7],
    biased: true,
  },
  {
    title: 'depthwise Conv',
    op: 'Conv',
    weight: [4, 1, 3, 3],
    channels: 4,
    dims: [2, 4, 7, 7],
    attributes: { group: 4 },
  },
  {
    title: 'grouped Conv',
    op: 'Conv',
    weight: [6, 2, 3, 3],
    channels: 6,
    dims: [2, 4, 7, 7],
    attributes: { group: 2 },
  },
  {
    title: 'ConvTranspose',
    op: 'ConvTranspose',
    weight: [3, 5, 2, 2],
    channels: 5,
    dims: [2, 3, 4, 4],
    biased: true,
  },
  {
    title: 'grouped ConvTranspose',
    op: 'ConvTranspose',
    weight: [4, 3, 2, 2],
    channels: 6,
    dims: [2, 4, 4, 4],
    attributes: { group: 2 },
  },
  {
    title: 'depthwise ConvTranspose',
    op: 'ConvTranspose',
    weight: [4, 1, 2, 2],
    channels: 4,
    dims: [2, 4, 4, 4],
    attributes: { group: 4 },
  },
  { title: 'Gemm', op: 'Gemm', weight: [6, 5], channels: 5, dims: [3, 6], biased: true },
  {
    title: 'Gemm transposed',
    op: 'Gemm',
    weight: [5, 6],
    channels: 5,
    dims: [3, 6],
    attributes: { transB: 1 },
  },
  {
    title: 'Conv of opset 8',
    op: 'Conv',
    weight: [5, 3, 3, 3],
    channels: 5,
    dims: [2, 3, 7, 7],
    opset: 8,
  },
];

const build = ({ op, weight, channels, dims, attributes, biased, opset }: Case): Model =>
  network(
    [node(op, ['x', 'w', ...(biased ? ['b'] : [])], ['z'], attributes), norm('z', 'y')],
    [
      stored('w', weight),
      ...(biased ? [stored('b', [channels], 3)] : []),
      ...normParameters('bn', channels),
    ],
    dims,
    opset,
  );

test.each(cases)('$title takes over the BatchNormalization', async (c) => {
  const feeds = { x: float32(c.dims) };
  const before = await outputOf(build(c), feeds);
  const model = build(c);
  const folded = await foldBatchNorm(model);
  expect(opTypes(model)).toEqual([c.op]);
  expect(folded).toHaveLength(1);
  expect(folded[0].scale).toHaveLength(c.channels);
  const names = model.proto.graph?.initializer.map(({ name }) => name);
  expect(names).toHaveLength(2);
  expect(names).toContain('w');
  expect(largestDifference(await outputOf(model, feeds), before)).toBeLessThan(1e-5);
});

test('alpha and beta of a Gemm stay what they mean', async () => {
  const gemm = node('Gemm', ['x', 'w', 'b'], ['z']);
  gemm.attribute = [
    { name: 'alpha', type: 1, f: 0.5 },
    { name: 'beta', type: 1, f: -2 },
  ];
  const parameters = [stored('w', [6, 5]), stored('b', [1, 5], 3), ...normParameters('bn', 5)];
  const make = () => network([gemm, norm('z', 'y')], parameters, [3, 6]);
  const model = make();
  await foldBatchNorm(model);
  const feeds = { x: float32([3, 6]) };
  expect(opTypes(model)).toEqual(['Gemm']);
  expect(
    largestDifference(await outputOf(model, feeds), await outputOf(make(), feeds)),
  ).toBeLessThan(1e-5);
});

test('two layers of one weight get a weight each', async () => {
  const make = () =>
    network(
      [
        node('Conv', ['x', 'w'], ['p']),
        norm('p', 'q', 'one'),
        node('Conv', ['x', 'w'], ['r']),
        norm('r', 's', 'two'),
        node('Add', ['q', 's'], ['y']),
      ],
      [stored('w', [4, 3, 3, 3]), ...normParameters('one', 4), ...normParameters('two', 4, 20)],
      [1, 3, 5, 5],
    );
  const model = make();
  expect(await foldBatchNorm(model)).toHaveLength(2);
  const feeds = { x: float32([1, 3, 5, 5]) };
  expect(model.proto.graph?.initializer).toHaveLength(4);
  expect(
    largestDifference(await outputOf(model, feeds), await outputOf(make(), feeds)),
  ).toBeLessThan(1e-5);
});

test('a weight in a Constant node, read through an Identity', async () => {
  const make = () =>
    network(
      [
        node('Constant', [], ['c'], { value: stored('', [4, 3, 3, 3]) }),
        node('Identity', ['c'], ['w']),
        node('Conv', ['x', 'w'], ['z']),
        norm('z', 'y'),
      ],
      normParameters('bn', 4),
      [1, 3, 5, 5],
    );
  const model = make();
  await foldBatchNorm(model);
  const feeds = { x: float32([1, 3, 5, 5]) };
  expect(opTypes(model)).toEqual(['Conv']);
  expect(
    largestDifference(await outputOf(model, feeds), await outputOf(make(), feeds)),
  ).toBeLessThan(1e-5);
});

test('stays where something else reads what the layer puts out', async () => {
  const model = network(
    [node('Conv', ['x', 'w'], ['z']), norm('z', 'u'), node('Add', ['z', 'u'], ['y'])],
    [stored('w', [4, 3, 3, 3]), ...normParameters('bn', 4)],
    [1, 3, 5, 5],
  );
  expect(await foldBatchNorm(model)).toEqual([]);
  expect(opTypes(model)).toEqual(['Conv', 'BatchNormalization', 'Add']);
});

test('a negative variance is refused by name', async () => {
  const parameters = normParameters('bn', 4);
  parameters[3] = floats(
    'bn.3',
    [4],
    noise(4).map(() => -1),
  );
  const model = network(
    [node('Conv', ['x', 'w'], ['z']), norm('z', 'y')],
    [stored('w', [4, 3, 3, 3]), ...parameters],
    [1, 3, 5, 5],
  );
  await expect(foldBatchNorm(model)).rejects.toMatchObject({
    exitCode: 5,
    detail: { where: 'node y' },
  });
});
