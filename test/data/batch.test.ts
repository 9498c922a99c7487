import { batches, openDataset } from '../../src/data/index.js';
import type { Batch, Dataset, Example, InputSpec, TensorData } from '../../src/data/types.js';
import { errorOf, expectBadData, npy, plain, scratch, spec } from './helpers.js';

const { write } = scratch();

const dataset = (examples: Example[], rest: Partial<Dataset> = {}): Dataset => ({
  path: 'memory',
  task: 'none',
  length: examples.length,
  files: [],
  example: async (i) => examples[i],
  ...rest,
});
const vector = (...values: number[]): TensorData => ({
  dtype: 'float32',
  dims: [values.length],
  data: Float32Array.from(values),
});
const ids = (...values: number[]): Example => ({
  inputs: {
    input_ids: { dtype: 'int64', dims: [values.length], data: BigInt64Array.from(values, BigInt) },
  },
  tokens: values.length,
});
const vectors = dataset([1, 2, 3, 4, 5].map((v) => ({ inputs: { x: vector(v, -v) }, label: v })));

async function collect(
  data: Dataset,
  size: number,
  specs: InputSpec[],
  indices = [...Array(data.length).keys()],
) {
  const all: Batch[] = [];
  for await (const batch of batches(data, indices, size, specs)) all.push(batch);
  return all;
}

describe('batch axis', () => {
  test('open: full batches and a shorter last one', async () => {
    const all = await collect(vectors, 2, [spec('x', 'float32', ['n', 2])]);
    expect(all.map(({ size, labels, feeds }) => [size, labels, feeds.x.dims])).toEqual([
      [2, [1, 2], [2, 2]],
      [2, [3, 4], [2, 2]],
      [1, [5], [1, 2]],
    ]);
    expect(plain(all[1].feeds.x).data).toEqual([3, -3, 4, -4]);
    expect(all[0].tokens).toBeUndefined();
  });

  test('indices are taken in their order', async () => {
    const [batch] = await collect(vectors, 9, [spec('x', 'float32', ['n', 2])], [4, 0]);
    expect(batch.labels).toEqual([5, 1]);
    expect(await collect(vectors, 9, [spec('x', 'float32', ['n', 2])], [])).toEqual([]);
    const none = await errorOf(collect(vectors, 0, [spec('x', 'float32', ['n', 2])]));
    expect(none.exitCode).toBe(2);
  });

  test('frozen: runs of exactly that size, the last example repeated', async () => {
    const all = await collect(vectors, 1, [spec('x', 'float32', [3, 2])]);
    expect(all.map(({ size }) => size)).toEqual([3, 2]);
    expect(all[1].labels).toEqual([4, 5]);
    expect(plain(all[1].feeds.x)).toEqual({
      dtype: 'float32',
      dims: [3, 2],
      data: [4, -4, 5, -5, 5, -5],
    });
    const conflict = collect(dataset([{ inputs: { a: vector(1), b: vector(1) } }]), 1, [
      spec('a', 'float32', [2, 1]),
      spec('b', 'float32', [3, 1]),
    ]);
    await expectBadData(conflict, /cannot be fed in batches/);
    await expectBadData(collect(vectors, 1, [spec('x', 'float32', [0, 2])]), /cannot be fed/);
  });

  test('absent: one example per run, no axis added', async () => {
    const all = await collect(vectors, 4, [spec('x', 'float32', [2])]);
    expect(all.length).toBe(5);
    expect(plain(all[2].feeds.x)).toEqual({ dtype: 'float32', dims: [2], data: [3, -3] });
  });

  test('examples of different shapes cannot be stacked', async () => {
    const mixed = dataset([{ inputs: { x: vector(1) } }, { inputs: { x: vector(1, 2) } }]);
    const x = [spec('x', 'float32', ['n', 'm'])];
    await expectBadData(collect(mixed, 2, x), /differ in shape.*batch size of 1/);
    expect((await collect(mixed, 1, x)).length).toBe(2);
  });
});

describe('sequences', () => {
  const texts = dataset([ids(5, 6, 7), ids(8, 9)], { padding: { input_ids: 3 } });
  const lm = [
    spec('input_ids', 'int64', ['batch', 'seq']),
    spec('attention_mask', 'float32', ['batch', 'seq']),
    spec('position_ids', 'int64', ['batch', 'seq']),
    spec('token_type_ids', 'int32', ['batch', 'seq']),
  ];

  test('are padded to the longest, and masked', async () => {
    const [{ feeds, tokens }] = await collect(texts, 2, lm);
    expect(tokens).toEqual([3, 2]);
    expect(Object.values(feeds).map(plain)).toEqual([
      { dtype: 'int64', dims: [2, 3], data: [5, 6, 7, 8, 9, 3] },
      { dtype: 'float32', dims: [2, 3], data: [1, 1, 1, 1, 1, 0] },
      { dtype: 'int64', dims: [2, 3], data: [0, 1, 2, 0, 1, 2] },
      { dtype: 'int32', dims: [2, 3], data: [0, 0, 0, 0, 0, 0] },
    ]);
  });

  test('are padded to the length a model fixes, in every row of its frozen batch', async () => {
    const fixed = [
      spec('input_ids', 'int64', [3, 4]),
      spec('attention_mask', 'bool', [3, 1, 2, 4]),
    ];
    const [{ feeds, tokens, size }] = await collect(texts, 1, fixed);
    expect([size, tokens]).toEqual([2, [3, 2]]);
    expect(plain(feeds.input_ids).data).toEqual([5, 6, 7, 3, 8, 9, 3, 3, 8, 9, 3, 3]);
    const row = (valid: number) => [0, 1, 2, 3].map((t) => Number(t < valid));
    expect(plain(feeds.attention_mask).data).toEqual([3, 3, 2, 2, 2, 2].flatMap(row));
    await expectBadData(
      collect(texts, 1, [spec('input_ids', 'int64', [1, 2])]),
      /longer than the model/,
    );
  });

  test('a mask the data carries is padded with zeros', async () => {
    const masked = dataset(
      [1, 2].map((n) => {
        const example = ids(...Array(n).fill(9));
        const mask: TensorData = { dtype: 'int64', dims: [n], data: new BigInt64Array(n).fill(1n) };
        return { ...example, inputs: { ...example.inputs, m: mask } };
      }),
    );
    const [{ feeds }] = await collect(masked, 2, [lm[0], spec('m', 'int64', ['batch', 'seq'])]);
    expect(plain(feeds.m).data).toEqual([1, 0, 1, 1]);
  });

  test('without a batch axis', async () => {
    const all = await collect(texts, 2, [
      spec('input_ids', 'int64', ['s']),
      spec('position_ids', 'int64', ['s']),
    ]);
    expect(all.map(({ feeds }) => plain(feeds.position_ids).data)).toEqual([
      [0, 1, 2],
      [0, 1],
    ]);
  });
});

describe('auxiliary inputs and constants', () => {
  const audio = dataset([{ inputs: { input: vector(1, 2) } }, { inputs: { input: vector(3, 4) } }]);
  const input = spec('input', 'float32', ['batch', '']);

  test('states, rates, flags and caches', async () => {
    const [{ feeds }] = await collect(audio, 2, [
      input,
      spec('state', 'float32', [2, '', 3]),
      spec('h', 'float16', [1, 'batch', 1]),
      spec('sr', 'int64', []),
      spec('past_key_values.0.value', 'float32', ['batch', 2, 'past_sequence_length', 4]),
      spec('use_cache_branch', 'bool', [1]),
    ]);
    expect(Object.values(feeds).map(({ dims }) => dims)).toEqual([
      [2, 2],
      [2, 2, 3],
      [1, 2, 1],
      [],
      [2, 2, 0, 4],
      [1],
    ]);
    expect(plain(feeds.state).data).toEqual(new Array(12).fill(0));
    expect(feeds.sr.data).toEqual(BigInt64Array.of(16000n));
    expect(feeds.use_cache_branch.data).toEqual(Uint8Array.of(0));
  });

  test('constants fill or repeat', async () => {
    const constants = { sr: 8000, rate: 3, w: vector(7, 8), k: vector(1, 2) };
    const [{ feeds }] = await collect(
      dataset(await Promise.all([0, 1].map(audio.example)), { constants }),
      2,
      [
        input,
        spec('sr', 'int32', ['batch']),
        spec('rate', 'int64', ['']),
        spec('w', 'float32', ['batch', 2]),
        spec('k', 'float32', [2]),
      ],
    );
    expect(plain(feeds.sr)).toEqual({ dtype: 'int32', dims: [2], data: [8000, 8000] });
    expect(plain(feeds.rate)).toEqual({ dtype: 'int64', dims: [1], data: [3] });
    expect(plain(feeds.w)).toEqual({ dtype: 'float32', dims: [2, 2], data: [7, 8, 7, 8] });
    expect(plain(feeds.k)).toEqual({ dtype: 'float32', dims: [2], data: [1, 2] });
  });

  test('an unknown input, or one of unknown size, is named with what to do', async () => {
    const unknown = collect(audio, 2, [input, spec('temperature', 'float32', [1])]);
    await expectBadData(unknown, /input temperature.*inputs: \{temperature: \{array/);
    const encoder = collect(audio, 2, [
      input,
      spec('encoder_hidden_states', 'float32', ['batch', 's', 8]),
    ]);
    await expectBadData(encoder, /input encoder_hidden_states/);
    const scores = collect(audio, 2, [
      input,
      spec('attention_mask', 'float32', ['batch', 1, 's', 's']),
    ]);
    await expectBadData(scores, /input attention_mask/);
    const mask = collect(audio, 2, [input, spec('mask', 'int64', ['batch', 'length'])]);
    await expectBadData(mask, /size of an input is unknown.*input mask, axis 1/);
    const text = collect(audio, 2, [input, spec('name', 'string', [1])]);
    await expectBadData(text, /input name/);
  });
});

test('from file to feeds: a frozen uint8 model fed from npy', async () => {
  const path = write('x.npy', npy('<i4', [3, 2], Int32Array.of(1, 2, 3, 4, 5, 255)));
  const specs = [spec('anything', 'uint8', [2, 2])];
  const all = await collect(await openDataset(path, specs), 32, specs);
  expect(all.map(({ feeds }) => plain(feeds.anything).data)).toEqual([
    [1, 2, 3, 4],
    [5, 255, 5, 255],
  ]);
});
