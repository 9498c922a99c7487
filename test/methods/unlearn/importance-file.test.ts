import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { ExitCode, ResectError } from '../../../src/errors.js';
import {
  checkComparable,
  type ImportanceMetadata,
  type ImportanceStore,
  importancesOf,
  mergeImportances,
  openImportances,
  pairImportances,
  writeImportances,
} from '../../../src/methods/unlearn/ssd/importance-file.js';
import { scratch } from '../../data/helpers.js';

const { folder, write } = scratch();

const metadata: ImportanceMetadata = {
  kind: 'fisher-batch',
  loss: 'ce-mean-logits',
  batches: 63,
  samples: 4000,
  batchSize: 64,
  lastBatch: 32,
  order: 'class-sorted',
  modelSha256: 'a'.repeat(64),
};
const sums = (entries: Record<string, [number[], Float32Array | Float64Array]>) =>
  new Map(Object.entries(entries).map(([name, [shape, values]]) => [name, { shape, values }]));
const small = importancesOf(
  metadata,
  sums({
    'fc.weight': [[2, 3], Float32Array.of(1, 2, 3, 0, Number.NaN, 1e-30)],
    'fc.bias': [[2], Float64Array.of(1 / 3, 7)],
  }),
);

/** All there is, to compare. */
const contents = async (store: ImportanceStore) => ({
  metadata: store.metadata,
  parameters: await Promise.all(
    store.parameters.map(async (parameter) => [parameter, await store.sums(parameter.name)]),
  ),
});

let files = 0;
async function saved(store: ImportanceStore): Promise<string> {
  const path = join(folder, `${files++}.imp.safetensors`);
  await writeImportances(path, store, false);
  return path;
}

/** The error of some work that must fail with one for the user. */
async function failure(work: () => Promise<unknown>): Promise<ResectError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof ResectError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('a file', () => {
  test('is a safetensors container with aligned values', async () => {
    const bytes = readFileSync(await saved(small));
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    expect((8 + length) % 8).toBe(0);
    expect(header).toEqual({
      __metadata__: {
        format: 'resect.importance/1',
        kind: 'fisher-batch',
        loss: 'ce-mean-logits',
        n_batches: '63',
        n_samples: '4000',
        batch_size: '64',
        last_batch: '32',
        order: 'class-sorted',
        model_sha256: 'a'.repeat(64),
        params: '["fc.bias","fc.weight"]',
      },
      'fc.bias': { dtype: 'F64', shape: [2], data_offsets: [0, 16] },
      'fc.weight': { dtype: 'F32', shape: [2, 3], data_offsets: [16, 40] },
    });
    expect(bytes.length).toBe(8 + length + 40);
    expect(bytes.readDoubleLE(8 + length + 8)).toBe(7);
    expect(bytes.readFloatLE(8 + length + 16)).toBe(1);
  });

  const name = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('__proto__', '0', '10', 'é', 'constructor'),
  );
  const value = fc.oneof(fc.double({ min: 0 }), fc.constant(0));
  const tensor = fc
    .tuple(fc.boolean(), fc.array(fc.nat(3), { maxLength: 3 }))
    .chain(([wide, shape]) => {
      const length = shape.reduce((a, b) => a * b, 1);
      return fc.array(value, { minLength: length, maxLength: length }).map((values) => ({
        shape,
        values: wide ? Float64Array.from(values) : Float32Array.from(values),
      }));
    });
  const tensors = fc.uniqueArray(fc.tuple(name, tensor), { maxLength: 5, selector: ([n]) => n });
  const about = fc.record(
    {
      dataSha256: fc.string(),
      dataNote: fc.string(),
      order: fc.string({ minLength: 1 }),
    },
    { requiredKeys: ['order'] },
  );

  test('is read as it was written', async () => {
    await fc.assert(
      fc.asyncProperty(tensors, about, async (entries, more) => {
        const store = importancesOf({ ...metadata, ...more }, new Map(entries));
        const path = join(folder, 'round.imp.safetensors');
        await writeImportances(path, store, true);
        expect(await contents(await openImportances(path))).toEqual(await contents(store));
      }),
      { numRuns: Number(process.env.RUNS ?? 80) },
    );
  });

  test('does not replace another unless asked to', async () => {
    const path = await saved(small);
    expect((await failure(() => writeImportances(path, small, false))).exitCode).toBe(ExitCode.io);
    await writeImportances(path, small, true);
  });

  test('cannot have a parameter of the name that the format keeps', async () => {
    const store = importancesOf(metadata, sums({ __metadata__: [[], Float32Array.of(1)] }));
    const path = join(folder, 'reserved');
    const { exitCode } = await failure(() => writeImportances(path, store, false));
    expect(exitCode).toBe(ExitCode.badData);
  });

  test('that is not there is an I/O error', async () => {
    const { exitCode } = await failure(() => openImportances(join(folder, 'none')));
    expect(exitCode).toBe(ExitCode.io);
  });
});

describe('damage', () => {
  const readAll = async (path: string) => contents(await openImportances(path));

  const latin1 = (text: string) => Buffer.from(text, 'latin1');

  /** A file with this header and as many bytes of values. */
  const withHeader = (header: unknown, bytes: number) => {
    const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(json.length));
    return Buffer.concat([prefix, json, Buffer.alloc(bytes)]);
  };
  const strings = {
    format: 'resect.importance/1',
    kind: 'fisher-batch',
    loss: 'ce-mean-logits',
    n_batches: '1',
    n_samples: '1',
    batch_size: '1',
    last_batch: '1',
    order: 'as-given',
    model_sha256: '0'.repeat(64),
    params: '["w"]',
  };
  const w = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const file = (changes: object, more: object = {}, bytes = 8) =>
    withHeader({ __metadata__: { ...strings, ...more }, w, ...changes }, bytes);

  test('the undamaged file is read', async () => {
    const { metadata: read } = await readAll(write('good', file({})));
    expect(read.batches).toBe(1);
  });

  test.each<[string, Uint8Array]>([
    ['empty', Buffer.alloc(0)],
    ['too short for a length', Buffer.alloc(7)],
    ['a header longer than the file', Buffer.from([255, 255, 0, 0, 0, 0, 0, 0, 123, 125])],
    ['a header length of 2^64 - 1', Buffer.alloc(16, 255)],
    ['no JSON', withHeader('{', 0)],
    ['no UTF-8', Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([255])])],
    ['names that are no UTF-8', latin1(file({}).toString('latin1').replaceAll('"w', '"\xff'))],
    ['deep JSON', withHeader('['.repeat(1e6), 0)],
    ['a list as header', withHeader([], 0)],
    ['null as header', withHeader('null', 0)],
    ['no metadata', withHeader({ w }, 8)],
    ['metadata that is a list', withHeader({ __metadata__: [], w }, 8)],
    ['metadata of numbers', withHeader({ __metadata__: { format: 1 }, w }, 8)],
    ['another format', file({}, { format: 'resect.importance/2' })],
    ['another kind', file({}, { kind: 'magnitude' })],
    ['no batches', file({}, { n_batches: '0' })],
    ['a count that is no safe integer', file({}, { n_samples: '9999999999999999' })],
    ['a count in another notation', file({}, { n_batches: '1e0' })],
    ['more samples than the batches hold', file({}, { n_samples: '2' })],
    ['a last batch above the batch size', file({}, { last_batch: '2' })],
    ['a hash that is none', file({}, { model_sha256: 'abc' })],
    ['params that are no JSON', file({}, { params: '[' })],
    ['params that are no list', file({}, { params: '"w"' })],
    ['a parameter missing', file({}, { params: '["v","w"]' })],
    ['a parameter too many', file({}, { params: '[]' })],
    ['an entry that is no object', file({ w: null })],
    ['integers', file({ w: { ...w, dtype: 'I32' } })],
    ['no shape', file({ w: { ...w, shape: undefined } })],
    ['a negative dimension', file({ w: { ...w, shape: [-2] } })],
    ['dimensions beyond any file', file({ w: { ...w, shape: Array(99).fill(2 ** 52) } })],
    [
      'dimensions beyond any file times 0',
      file({ w: { ...w, shape: [...Array(99).fill(2 ** 52), 0] } }),
    ],
    ['offsets that do not fit the shape', file({ w: { ...w, shape: [3] } })],
    ['offsets beyond the file', file({ w: { ...w, shape: [4], data_offsets: [0, 16] } })],
    ['offsets in reverse', file({ w: { ...w, data_offsets: [8, 0] } })],
    ['three offsets', file({ w: { ...w, data_offsets: [0, 8, 8] } })],
    ['values that no tensor has', file({}, {}, 12)],
    ['values missing', file({}, {}, 4)],
    ['a hole', file({ w: { ...w, data_offsets: [4, 12] } }, {}, 12)],
    ['tensors on one another', file({ v: w }, { params: '["v","w"]' })],
    ['an importance below 0', Buffer.concat([file({}, {}, 4), Buffer.from([0, 0, 128, 191])])],
  ])('%s', async (_, bytes) => {
    const { exitCode, detail } = await failure(() => readAll(write('damaged', bytes)));
    expect(exitCode).toBe(ExitCode.badData);
    expect(detail.where).toContain('damaged');
  });

  test('anywhere is reported as bad data, or not to be seen', async () => {
    const whole = readFileSync(await saved(small));
    const edit = fc.tuple(fc.nat(whole.length - 1), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(
        fc.array(edit, { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(whole.length - 1)),
        async (edits, cut) => {
          const bytes = Buffer.from(whole);
          for (const [at, byte] of edits) bytes[at] = byte;
          const path = write('mutated', bytes.subarray(0, cut ?? bytes.length));
          const exitCode = await readAll(path).then(
            () => 'read',
            (error) => (error instanceof ResectError ? error.exitCode : error),
          );
          if (cut !== null) expect(exitCode).toBe(ExitCode.badData);
          else expect(['read', ExitCode.badData]).toContain(exitCode);
        },
      ),
      { numRuns: Number(process.env.RUNS ?? 300) },
    );
  });
});

describe('merging', () => {
  const part = (values: number[], changes: Partial<ImportanceMetadata> = {}, wide = false) =>
    importancesOf(
      { ...metadata, ...changes },
      sums({ w: [[values.length], wide ? Float64Array.from(values) : Float32Array.from(values)] }),
    );

  test('adds sums and counts', async () => {
    const a = part([1, 2], { batches: 2, samples: 128, lastBatch: 64, dataSha256: 'x' });
    const b = part([10, 20], { batches: 1, samples: 30, lastBatch: 30, order: 'shuffled:1' });
    expect(await contents(mergeImportances(a, b, 'a, b'))).toEqual({
      metadata: {
        ...metadata,
        batches: 3,
        samples: 158,
        lastBatch: 30,
        order: 'mixed',
        dataSha256: 'x',
        dataNote: undefined,
      },
      parameters: [[{ name: 'w', shape: [2], dtype: 'F32' }, Float32Array.of(11, 22)]],
    });
  });

  test('keeps what both agree on, and both hashes', () => {
    const a = part([1], { dataSha256: 'x', dataNote: 'n' });
    const b = part([1], { dataSha256: 'y', dataNote: 'n' });
    expect(mergeImportances(a, b, '').metadata).toMatchObject({
      order: 'class-sorted',
      dataSha256: 'x, y',
      dataNote: 'n',
    });
  });

  test('is additive, through files, in any order and precision', async () => {
    // Whole numbers, so that float32 sums are exact.
    const values = fc.array(fc.nat(1000), { minLength: 3, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(values, values, values, fc.boolean(), async (x, y, z, wide) => {
        const [a, b, c] = [part(x), part(y, {}, wide), part(z)];
        const left = mergeImportances(mergeImportances(a, b, ''), c, '');
        const right = mergeImportances(a, mergeImportances(c, b, ''), '');
        const path = join(folder, 'merged');
        await writeImportances(path, left, true);
        const read = await openImportances(path);
        expect(await contents(read)).toEqual(await contents(right));
        const expected = x.map((value, i) => value + y[i] + z[i]);
        expect([...(await read.sums('w'))]).toEqual(expected);
        expect(read.parameters[0].dtype).toBe(wide ? 'F64' : 'F32');
        expect([...(await a.sums('w'))]).toEqual(x);
      }),
      { numRuns: 30 },
    );
  });

  test.each<[string, Partial<ImportanceMetadata>]>([
    ['kind', { kind: 'lfssd-abs' }],
    ['loss', { loss: 'sqnorm-logits' }],
    ['batch size', { batchSize: 128 }],
    ['model', { modelSha256: 'b'.repeat(64) }],
  ])('refuses another %s', async (what, changes) => {
    const work = async () => mergeImportances(part([1]), part([1], changes), 'a.imp, b.imp');
    const { exitCode, message, detail } = await failure(work);
    expect(exitCode).toBe(ExitCode.badData);
    expect(message).toContain(what);
    expect(detail.where).toBe('a.imp, b.imp');
  });

  test('refuses other parameters', async () => {
    const other = importancesOf(metadata, sums({ v: [[1], Float32Array.of(1)] }));
    const more = importancesOf(
      metadata,
      sums({ w: [[1], Float32Array.of(1)], x: [[1], Float32Array.of(1)] }),
    );
    for (const b of [other, more, part([1, 2]), importancesOf(metadata, new Map())]) {
      for (const [x, y] of [
        [part([1]), b],
        [b, part([1])],
      ]) {
        const { exitCode } = await failure(async () => checkComparable(x, y, ''));
        expect(exitCode).toBe(ExitCode.badData);
      }
    }
  });
});

test('importances are means over batches, in pairs', async () => {
  const of = (batches: number, value: number) =>
    importancesOf(
      { ...metadata, batches },
      sums({ w: [[1], Float32Array.of(value)], b: [[1], Float64Array.of(value)] }),
    );
  const [forget, full] = [of(3, 1), of(10, 2)];
  const pairs = [];
  for await (const pair of pairImportances(forget, full)) pairs.push(pair);
  expect(pairs).toEqual([
    { name: 'b', forget: Float64Array.of(1 / 3), full: Float64Array.of(0.2) },
    { name: 'w', forget: Float32Array.of(1 / 3), full: Float32Array.of(0.2) },
  ]);
  expect(await forget.sums('w')).toEqual(Float32Array.of(1));
});
