import type { Dataset } from '../../../src/data/index.js';
import { layerMatcher } from '../../../src/methods/layer-globs.js';
import type { Plan } from '../../../src/methods/method.js';
import type { TernarizeLayer } from '../../../src/methods/ternarize/layers.js';
import { ternarize } from '../../../src/methods/ternarize/method.js';
import {
  encodeModel,
  type Model,
  type ModelProto,
  parseModel,
  serializeModel,
} from '../../../src/onnx/index.js';
import { noise } from '../../graph/helpers.js';
import { model, node, value, weight } from '../../support/protos.js';
import { floatTensor, runOnce } from '../../support/run.js';

const stored = (name: string, shape: number[], seed: number) => ({
  ...weight(name, shape),
  rawData: new Uint8Array(
    noise(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ).buffer,
  ),
});

const read = (proto: ModelProto): Model => parseModel(encodeModel(proto));

/** Inputs that are neither centred nor independent. */
const dataset = (dims: number[], length = 200): Dataset => ({
  path: 'samples',
  task: 'none',
  length,
  files: [],
  example: async (i) => {
    const data = noise(
      dims.reduce((a, b) => a * b, 1),
      i + 5,
    );
    for (const [k, x] of data.entries()) data[k] = 0.6 + x + 0.8 * (data[k - 1] ?? 0);
    return { inputs: { x: { dtype: 'float32', dims, data } } };
  },
});

interface Options {
  parameters?: object;
  data?: Dataset;
  exclude?: string[];
  threads?: number;
}

async function apply(m: Model, { parameters = {}, data, exclude = [], threads = 1 }: Options) {
  const excluded = layerMatcher(exclude);
  const given = ternarize.parameters.parse({ firstLast: true, maxLayerError: 10, ...parameters });
  const { layers, notes } = await ternarize.apply(m, given, {
    calibration: data && {
      dataset: data,
      indices: Array.from({ length: data.length }, (_, i) => i),
    },
    selects: (name) => !excluded(name),
    threads,
    seed: 0,
    progress: () => {},
  });
  return {
    layers: layers as TernarizeLayer[],
    notes,
    made: parseModel(await serializeModel(m)).proto,
  };
}

const product = (): ModelProto =>
  model({
    input: [value('x', ['n', 64])],
    initializer: [stored('w', [64, 80], 1)],
    node: [node('MatMul', ['x', 'w'], ['y'], {}, { name: 'layer' })],
    output: [value('y', ['n', 80])],
  });

test('with the full bias outputs are right on average over the examples that were seen', async () => {
  const data = dataset([64]);
  const drift = async (bias: string) => {
    const { made } = await apply(read(product()), {
      data,
      parameters: { format: 'float', bias },
    });
    const sums = new Float64Array(80);
    const original = product();
    for (let i = 0; i < data.length; i++) {
      // Every fifth is held out.
      if (i % 5 === 4) continue;
      const { x } = (await data.example(i)).inputs;
      const feeds = { x: floatTensor([1, 64], x.data as Float32Array) };
      const [before, after] = await Promise.all([original, made].map((m) => runOnce(m, feeds)));
      for (const [k, y] of (after.y.data as Float32Array).entries())
        sums[k] += (y - Number(before.y.data[k])) / 160;
    }
    return Math.max(...sums.map(Math.abs));
  };
  expect(await drift('full')).toBeLessThan(1e-4);
  expect(await drift('none')).toBeGreaterThan(0.05);
}, 60_000);

test('a weight that two layers read is coded once, with a bias for each', async () => {
  const shared = model({
    input: [value('x', ['n', 64])],
    initializer: [stored('w', [64, 64], 2)],
    node: [
      node('MatMul', ['x', 'w'], ['h'], {}, { name: 'first' }),
      node('Relu', ['h'], ['r']),
      node('MatMul', ['r', 'w'], ['y'], {}, { name: 'second' }),
    ],
    output: [value('y', ['n', 64])],
  });
  const m = read(shared);
  const { layers } = await apply(m, { data: dataset([64]) });
  expect(layers.map(({ status }) => status)).toEqual(['changed', 'changed']);
  expect(layers[1].bytes).toEqual({ before: 0, after: 0 });
  const names = m.proto.graph!.initializer.map(({ name }) => name!);
  expect(names.filter((name) => name.endsWith('_blocks'))).toHaveLength(1);
  expect(names.filter((name) => name.endsWith('_bias'))).toHaveLength(2);

  const kept = await apply(read(shared), { data: dataset([64]), exclude: ['second'] }).catch(
    (e) => e,
  );
  expect(kept.message).toMatch(/no layer whose weights could be packed/);
});

test('groups of a convolution are coded each by its own inputs', async () => {
  const grouped = model({
    input: [value('x', ['n', 32, 6, 6])],
    initializer: [stored('w', [64, 16, 3, 3], 3), stored('b', [64], 4)],
    node: [
      node('Conv', ['x', 'w', 'b'], ['y'], { group: 2, pads: [1, 1, 1, 1] }, { name: 'layer' }),
    ],
    output: [value('y', ['n', 64, 6, 6])],
  });
  const data = dataset([32, 6, 6], 40);
  const { layers, made } = await apply(read(grouped), {
    data,
    parameters: { format: 'standard' },
  });
  expect(layers[0]).toMatchObject({ status: 'changed', coding: 'gptq-cd', shape: [64, 144] });
  const { x } = (await data.example(100)).inputs;
  const feeds = { x: floatTensor([1, 32, 6, 6], x.data as Float32Array) };
  const [before, after] = await Promise.all([grouped, made].map((m) => runOnce(m, feeds)));
  let [error, power] = [0, 0];
  for (const [k, y] of (before.y.data as Float32Array).entries()) {
    error += (y - Number(after.y.data[k])) ** 2;
    power += y ** 2;
  }
  // As on the held-out examples.
  expect(error / power).toBeLessThan(2 * layers[0].outputError!);
  expect(layers[0].outputError).toBeLessThan(0.1);
});

test('the stages of a layer lose less and less', async () => {
  const data = dataset([64], 400);
  const errors: number[] = [];
  for (const method of ['fit', 'gptq', 'gptq-cd']) {
    const { layers } = await apply(read(product()), { data, parameters: { method } });
    errors.push(layers[0].outputError!);
  }
  expect(errors[1]).toBeLessThan(errors[0]);
  expect(errors[2]).toBeLessThan(errors[1]);
});

test('weights and data that are not finite are refused by name', async () => {
  const proto = product();
  const values = new Float32Array(64 * 80).fill(Number.NaN);
  proto.graph!.initializer[0].rawData = new Uint8Array(values.buffer);
  await expect(apply(read(proto), {})).rejects.toThrow(/not a finite number/);
  const data = dataset([64], 10);
  const broken: Dataset = {
    ...data,
    example: async () => ({
      inputs: { x: { dtype: 'float32', dims: [64], data: new Float32Array(64).fill(Number.NaN) } },
    }),
  };
  await expect(apply(read(product()), { data: broken })).rejects.toThrow(/not finite/);
});

test('too few rows for covariances: groups by themselves, and a note', async () => {
  const { layers, notes } = await apply(read(product()), { data: dataset([64], 20) });
  expect(layers[0].coding).toBe('fit');
  expect(notes.join(' ')).toMatch(/Too few calibration rows/);
});

test('what no format can replace stays, with the reason', () => {
  const proto = model({
    input: [value('x', ['n', 64]), value('z', ['n', 8, 64])],
    initializer: [
      stored('w', [64, 64], 1),
      stored('small', [64, 8], 2),
      stored('left', [64, 64], 3),
      stored('router', [64, 64], 4),
    ],
    node: [
      node('MatMul', ['x', 'w'], ['a'], {}, { name: 'first' }),
      node('MatMul', ['a', 'small'], ['b'], {}, { name: 'small' }),
      node('MatMul', ['left', 'z'], ['c'], {}, { name: 'left' }),
      node('MatMul', ['a', 'router'], ['d'], {}, { name: 'last' }),
    ],
    output: [value('b', ['n', 8]), value('c', ['n', 64, 64]), value('d', ['n', 64])],
  });
  const given = ternarize.parameters.parse({});
  const { layers } = ternarize.plan(read(proto), given, {
    selects: () => true,
  }) as Plan<TernarizeLayer>;
  expect(layers.map(({ name, reason }) => [name, reason])).toEqual([
    ['first', 'first layer (--first-last takes it, too)'],
    ['small', 'fewer than 4096 weights'],
    ['left', expect.any(String)],
    ['last', 'last layer (--first-last takes it, too)'],
  ]);
});
