import type { Dataset } from '../../../src/data/index.js';
import { openDataset } from '../../../src/data/index.js';
import { modelInputs } from '../../../src/graph/interface.js';
import {
  encodeModel,
  type GraphProto,
  type Model,
  type NodeProto,
  parseModel,
  readModel,
  type TensorProto,
} from '../../../src/onnx/index.js';
import { noise } from '../../graph/helpers.js';
import { inRepository } from '../../support/cli.js';
import { ints, model, node, value, weight } from '../../support/protos.js';
import { layerWeights, sparsifyInMemory, zeroPattern } from './helpers.js';

const features = 16;

/** Samples [tokens, 16] that draw on some channels far more than on others. */
const dataset = (more: Partial<Dataset> = {}): Dataset => ({
  path: 'samples',
  task: 'none',
  length: 5,
  files: [],
  example: async (i) => ({
    inputs: {
      x: {
        dtype: 'float32',
        dims: [4, features],
        data: noise(4 * features, i + 1).map((v, k) => v * (1 + ((k * 7) % features))),
      },
    },
  }),
  ...more,
});

const network = (
  nodes: NodeProto[],
  initializer: TensorProto[],
  more: Partial<GraphProto> = {},
): Model =>
  parseModel(
    encodeModel(
      model({
        input: [value('x', ['n', 4, features])],
        initializer,
        node: nodes,
        output: [{ name: nodes.at(-1)!.output[0] }],
        ...more,
      }),
    ),
  );

const product = (x: string, w: string, y: string) => node('MatMul', [x, w], [y], {}, { name: y });
const square = (name: string, seed: number): TensorProto => ({
  ...weight(name, [features, features]),
  rawData: new Uint8Array(noise(features * features, seed).buffer),
});

const wanda = { sparsity: 0.5, init: 'wanda', refine: 'none', calibMode: 'oneshot' } as const;

async function masks(
  m: Model,
  more: Parameters<typeof sparsifyInMemory>[1],
): Promise<Map<string, string>> {
  await sparsifyInMemory(m, more);
  return new Map([...(await layerWeights(m))].map(([name, w]) => [name, zeroPattern(w)]));
}

describe('a weight that two layers share', () => {
  const siamese = () =>
    network(
      [product('x', 'w', 'a'), node('Tanh', ['a'], ['t']), product('t', 'w', 'b')],
      [square('w', 1)],
    );

  test('is pruned once, by the statistics of both', async () => {
    const [one] = new Set(
      (await masks(siamese(), { parameters: wanda, dataset: dataset() })).values(),
    );
    const alone = network([product('x', 'w', 'a')], [square('w', 1)]);
    const [first] = (await masks(alone, { parameters: wanda, dataset: dataset() })).values();
    expect(one).not.toBe(first);
  });

  test('keeps the segments between its layers together', async () => {
    // Cut in three, w would be pruned before its second layer was seen.
    const far = () =>
      network(
        [
          product('x', 'w', 'a'),
          product('a', 'u', 'b'),
          product('b', 'w', 'c'),
          product('c', 'v', 'd'),
        ],
        [square('w', 1), square('u', 2), square('v', 3)],
      );
    const sequential = { ...wanda, calibMode: 'sequential' } as const;
    const whole = await masks(far(), { parameters: wanda, dataset: dataset() });
    const m = far();
    const { notes } = await sparsifyInMemory(m, { parameters: sequential, dataset: dataset() });
    expect(notes).toContain('calibrated segment by segment: 2 segments');
    const weights = await layerWeights(m);
    for (const name of ['a', 'b', 'c'])
      expect(zeroPattern(weights.get(name)!)).toBe(whole.get(name));
    expect(zeroPattern(weights.get('d')!)).not.toBe(whole.get('d'));
  });

  test('is left as it is when the user excludes one of its layers', async () => {
    const m = siamese();
    const run = sparsifyInMemory(m, {
      parameters: wanda,
      dataset: dataset(),
      selects: (name) => name !== 'b',
    });
    // Nothing else could be pruned: either the plan says so, or the layer stays.
    await run.catch(() => {});
    const [w] = (await layerWeights(m)).values();
    expect(w.filter((v) => v === 0).length).toBe(0);
  });

  test('does not mix its statistics into those of other layers', async () => {
    // u reads x as w's first layer does, and must not hear of what w's second layer reads.
    const m = network(
      [
        product('x', 'w', 'a'),
        node('Tanh', ['a'], ['t']),
        product('t', 'w', 'b'),
        product('x', 'u', 'c'),
        node('Add', ['b', 'c'], ['y']),
      ],
      [square('w', 1), square('u', 2)],
    );
    const alone = network([product('x', 'u', 'c')], [square('u', 2)]);
    const together = await masks(m, { parameters: wanda, dataset: dataset() });
    const apart = await masks(alone, { parameters: wanda, dataset: dataset() });
    expect(together.get('c')).toBe(apart.get('c'));
  });
});

describe('layers that read one activation', () => {
  test.each(['wanda', 'sparsegpt'] as const)(
    '%s: each is pruned as it would be alone',
    async (init) => {
      const names = ['q', 'k', 'v'];
      const parameters = { ...wanda, init };
      const m = network(
        [
          ...names.map((n) => product('x', n, `${n}.out`)),
          node(
            'Sum',
            names.map((n) => `${n}.out`),
            ['y'],
          ),
        ],
        names.map((n, i) => square(n, i + 1)),
      );
      const together = await masks(m, { parameters, dataset: dataset() });
      for (const [i, n] of names.entries()) {
        const alone = network([product('x', n, `${n}.out`)], [square(n, i + 1)]);
        const apart = await masks(alone, { parameters, dataset: dataset() });
        expect([n, together.get(`${n}.out`)]).toEqual([n, apart.get(`${n}.out`)]);
      }
    },
  );

  test('gpt-moby with SparseGPT uses the Hessian for q, k and v alike', async () => {
    const m = await readModel(inRepository('fixtures/gpt-moby/gpt-moby.onnx'));
    const data = await openDataset(
      inRepository('fixtures/gpt-moby/calib.yaml'),
      modelInputs(m.proto),
    );
    const prune = async (init: 'wanda' | 'sparsegpt') => {
      const model = await readModel(inRepository('fixtures/gpt-moby/gpt-moby.onnx'));
      return masks(model, {
        parameters: { ...wanda, init },
        dataset: data,
        indices: [0, 1, 2, 3],
        selects: (name) => /blocks.0\/attn\/[qkv]/.test(name),
      });
    };
    const [byWanda, byHessian] = [await prune('wanda'), await prune('sparsegpt')];
    for (const name of ['q', 'k', 'v'].map((n) => `/blocks.0/attn/${n}/MatMul`)) {
      expect([name, byHessian.get(name) === byWanda.get(name)]).toEqual([name, false]);
    }
  });
});

describe('runs of a model with a frozen batch', () => {
  test('the last run’s repeated example counts once', async () => {
    const frozen = (batch: number | string) =>
      network([product('x', 'w', 'y')], [square('w', 1)], {
        input: [value('x', [batch, 4, features])],
      });
    // Five examples: a batch of 4 runs twice, with three repetitions.
    const free = await masks(frozen('n'), { parameters: wanda, dataset: dataset() });
    const whole = await masks(frozen(5), { parameters: wanda, dataset: dataset() });
    const padded = await masks(frozen(4), { parameters: wanda, dataset: dataset() });
    expect(whole.get('y')).toBe(free.get('y'));
    expect(padded.get('y')).toBe(free.get('y'));
  });
});

describe('tokens behind the end of a sequence', () => {
  // Embedding 0 is what padding reads; it is huge, and would rule every statistic.
  const table = () => {
    const values = noise(8 * features, 3).map((v, i) => (i < features ? (i % 2 ? 1000 : 0) : v));
    return { ...weight('table', [8, features]), rawData: new Uint8Array(values.buffer) };
  };
  const encoder = (length: number | string, batch: number | string = 1) =>
    network(
      [node('Gather', ['table', 'ids'], ['h']), product('h', 'w', 'y')],
      [table(), square('w', 1)],
      {
        input: [value('ids', [batch, length], 'int64')],
      },
    );
  const sequences = [[1, 2, 3], [4, 5], [6, 7, 1, 2], [3]];
  const texts = dataset({
    length: sequences.length,
    padding: { ids: 0 },
    example: async (i) => {
      const data = BigInt64Array.from(sequences[i], BigInt);
      return {
        tokens: data.length,
        inputs: { ids: { dtype: 'int64', dims: [data.length], data } },
      };
    },
  });

  test('do not count', async () => {
    const free = await masks(encoder('n'), { parameters: wanda, dataset: texts });
    const fixed = await masks(encoder(6), { parameters: wanda, dataset: texts });
    expect(fixed.get('y')).toBe(free.get('y'));
  });

  test('do not count in batches, either', async () => {
    const free = await masks(encoder('n'), { parameters: wanda, dataset: texts });
    const batched = await masks(encoder(6, 2), { parameters: wanda, dataset: texts });
    expect(batched.get('y')).toBe(free.get('y'));
  });
});

describe('a layer that sees nothing', () => {
  test('in some samples is pruned by the others, in all of them is left', async () => {
    // A detector: keeps the rows whose first feature is positive.
    const m = () =>
      network(
        [
          node('Reshape', ['x', 'flat'], ['rows']),
          node('Gather', ['rows', 'first'], ['score'], { axis: 1 }),
          node('Greater', ['score', 'zero'], ['found']),
          node('Compress', ['rows', 'found'], ['boxes'], { axis: 0 }),
          product('boxes', 'w', 'y'),
        ],
        [
          square('w', 1),
          ints('flat', -1, features),
          { ...ints('first', 0), dims: [] },
          { ...weight('zero', [1]), rawData: new Uint8Array(4) },
        ],
      );
    const signed = (sign: (i: number) => number) =>
      dataset({
        example: async (i) => ({
          inputs: {
            x: {
              dtype: 'float32',
              dims: [4, features],
              data: noise(4 * features, i + 1).map((v, k) => (k % features ? v : sign(i))),
            },
          },
        }),
      });
    const some = await sparsifyInMemory(m(), {
      parameters: wanda,
      dataset: signed((i) => (i === 2 ? 1 : -1)),
    });
    expect(some.layers[0].status).toBe('changed');
    const none = sparsifyInMemory(m(), { parameters: wanda, dataset: signed(() => -1) });
    await expect(none).rejects.toMatchObject({ exitCode: 5 });
  });
});
