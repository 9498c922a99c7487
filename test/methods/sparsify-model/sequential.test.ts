import type { Dataset } from '../../../src/data/index.js';
import {
  encodeModel,
  type Model,
  parseModel,
  serializeModel,
  type TensorProto,
} from '../../../src/onnx/index.js';
import { noise } from '../../graph/helpers.js';
import { model, node, value, weight } from '../../support/protos.js';
import { layerWeights, sparsifyInMemory, zeroPattern } from './helpers.js';

const features = 24;
const square = (name: string, seed: number): TensorProto => ({
  ...weight(name, [features, features]),
  rawData: new Uint8Array(noise(features * features, seed).buffer),
});

/** Three layers in a row. */
const chain = (): Model =>
  parseModel(
    encodeModel(
      model({
        input: [value('x', ['n', features])],
        initializer: [square('u', 1), square('v', 2), square('w', 3)],
        node: [
          node('MatMul', ['x', 'u'], ['a'], {}, { name: 'first' }),
          node('Relu', ['a'], ['b']),
          node('MatMul', ['b', 'v'], ['c'], {}, { name: 'second' }),
          node('Relu', ['c'], ['d']),
          node('MatMul', ['d', 'w'], ['y'], {}, { name: 'third' }),
        ],
        output: [value('y', ['n', features])],
      }),
    ),
  );

const dataset: Dataset = {
  path: 'samples',
  task: 'none',
  length: 12,
  files: [],
  example: async (i) => ({
    inputs: { x: { dtype: 'float32', dims: [features], data: noise(features, i + 5) } },
  }),
};

const patterns = async (m: Model) =>
  new Map([...(await layerWeights(m))].map(([name, w]) => [name, zeroPattern(w)]));

const prune = async (m: Model, calibMode: 'oneshot' | 'sequential', only?: string) => {
  await sparsifyInMemory(m, {
    parameters: { sparsity: 0.7, init: 'wanda', refine: 'none', calibMode },
    dataset,
    selects: (name) => !only || name === only,
  });
  return parseModel(await serializeModel(m));
};

test('sequential: each layer sees what the pruned layers before it put out', async () => {
  let byHand = chain();
  for (const layer of ['first', 'second', 'third']) byHand = await prune(byHand, 'oneshot', layer);
  const sequential = await prune(chain(), 'sequential');
  expect(await patterns(sequential)).toEqual(await patterns(byHand));
});

test('one-shot: each layer sees what the dense layers before it put out', async () => {
  const oneshot = await patterns(await prune(chain(), 'oneshot'));
  for (const layer of ['first', 'second', 'third'])
    expect((await patterns(await prune(chain(), 'oneshot', layer))).get(layer)).toBe(
      oneshot.get(layer),
    );
  expect(oneshot).not.toEqual(await patterns(await prune(chain(), 'sequential')));
});

test('the same input gives the same bytes', async () => {
  const bytes = async () => serializeModel(await prune(chain(), 'sequential'));
  expect(Buffer.from(await bytes()).equals(Buffer.from(await bytes()))).toBe(true);
});

test('an unlucky layer is found before anything is written: NaN weights, NaN data', async () => {
  const broken = chain();
  const w = broken.proto.graph!.initializer[1];
  broken.edits.set(w, (raw) => raw.map((byte, i) => (i < 4 ? 0xff : byte)));
  await expect(prune(broken, 'oneshot')).rejects.toMatchObject({
    exitCode: 5,
    detail: { where: 'tensor v' },
  });

  const nan: Dataset = {
    ...dataset,
    example: async () => ({
      inputs: {
        x: {
          dtype: 'float32',
          dims: [features],
          data: new Float32Array(features).fill(Number.NaN),
        },
      },
    }),
  };
  const run = sparsifyInMemory(chain(), { parameters: { sparsity: 0.5 }, dataset: nan });
  await expect(run).rejects.toMatchObject({ exitCode: 6, detail: { where: 'first' } });
});
