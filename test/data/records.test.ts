import { readFileSync } from 'node:fs';
import { openDataset } from '../../src/data/index.js';
import { openJsonl } from '../../src/data/jsonl.js';
import { openParquet } from '../../src/data/parquet.js';
import { toTensor } from '../../src/data/records.js';
import { all, expectBadData, fixture, plain, scratch, spec } from './helpers.js';

const { write } = scratch();

describe('values', () => {
  test('nested lists are tensors', () => {
    expect(
      plain(
        toTensor(
          [
            [1, 2.5],
            [3, 4],
          ],
          'x',
        ),
      ),
    ).toEqual({ dtype: 'float64', dims: [2, 2], data: [1, 2.5, 3, 4] });
    expect(plain(toTensor(true, 'x'))).toEqual({ dtype: 'bool', dims: [], data: [1] });
    expect(toTensor([3n], 'x')).toEqual({ dtype: 'int64', dims: [1], data: BigInt64Array.of(3n) });
    expect(toTensor(Float32Array.of(1, 2), 'x').dims).toEqual([2]);
    expect(toTensor([], 'x').dims).toEqual([0]);
  });

  test('what is no tensor is refused', () => {
    expect(() => toTensor([[1], [2, 3]], 'x')).toThrow(/equal lengths/);
    expect(() => toTensor([[1], 2], 'x')).toThrow(/equal lengths/);
    expect(() => toTensor([1, [2]], 'x')).toThrow(/equal lengths/);
    expect(() => toTensor([1, null], 'x')).toThrow(/numbers were expected/);
    expect(() => toTensor('7', 'x')).toThrow(/numbers were expected/);
    let deep: unknown = 1;
    for (let i = 0; i < 20000; i++) deep = [deep];
    expect(() => toTensor(deep, 'x')).toThrow(/too deeply/);
  });
});

describe('jsonl', () => {
  test('fields named as inputs feed them', async () => {
    const path = write(
      'a.jsonl',
      '{"x": [1, 2], "label": 1.5, "id": "p"}\r\n{"x": [3, 4], "label": 2}\n',
    );
    const dataset = await openDataset(path, [spec('x', 'float32', ['n', 2])]);
    expect(dataset.task).toBe('regression');
    const [, second] = await all(dataset);
    expect([plain(second.inputs.x).data, second.label]).toEqual([[3, 4], 2]);
  });

  test('errors name the line', async () => {
    await expectBadData(
      openJsonl(write('b.jsonl', '{"x": 1}\n\n{"x": \n')),
      /not JSON.*b\.jsonl:3/,
    );
    await expectBadData(openJsonl(write('c.jsonl', '[1]\n')), /not a JSON object/);
    const x = [spec('x', 'float32', ['n'])];
    const dataset = await openDataset(write('d.jsonl', '{"x": 1}\n{"y": 1}\n'), x);
    await expectBadData(dataset.example(1), /numbers were expected.*d\.jsonl:2, field x.*nothing/);
    await expectBadData(openDataset(write('e.jsonl', '\n'), x), /no examples|nothing for an input/);
    const proto = await openDataset(write('f.jsonl', '{"x": 1}\n{}\n'), [
      spec('toString', 'float32', ['n']),
    ]);
    await expectBadData(proto.example(1), /nothing/);
  });
});

describe('parquet', () => {
  test.each(['snappy', 'zstd'])('%s columns across row groups', async (codec) => {
    const specs = [spec('x', 'float32', ['n', 2]), spec('n', 'int32', ['n'])];
    const dataset = await openDataset(fixture(`${codec}.parquet`), specs);
    expect([dataset.length, dataset.task]).toEqual([5, 'classification']);
    const examples = await all(dataset);
    expect(examples.map(({ label }) => label)).toEqual([0, 1, 1, 0, 1]);
    expect(examples.map(({ inputs }) => plain(inputs.x).data)).toEqual(
      [0.5, 1.5, 2.5, 3.5, 4.5].map((v, i) => [v, i + 1]),
    );
    expect(examples.map(({ inputs }) => plain(inputs.n).data[0])).toEqual([0, 10, 20, 30, 40]);
    expect(plain((await dataset.example(0)).inputs.x).data).toEqual([0.5, 1]);
  });

  test('text', async () => {
    const file = await openParquet(fixture('snappy.parquet'));
    expect(await file.texts?.('text')).toEqual([
      'Call me',
      'Ishmael.',
      'Some years',
      'ago - never',
      'mind how',
    ]);
  });

  test('damage is reported', async () => {
    const bytes = readFileSync(fixture('snappy.parquet'));
    await expectBadData(openParquet(write('short.parquet', 'PAR1')), /not a readable parquet/);
    await expectBadData(openParquet(write('empty.parquet', '')), /not a readable parquet/);
    await expectBadData(
      openParquet(write('cut.parquet', bytes.subarray(0, 500))),
      /not a readable parquet/,
    );
    const broken = Buffer.from(bytes);
    broken.fill(0xff, 4, 200);
    const x = [spec('x', 'float32', ['n', 2])];
    await expectBadData(openDataset(write('broken.parquet', broken), x), /not a readable parquet/);
  });
});
