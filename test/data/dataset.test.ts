import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { hashFiles, openDataset } from '../../src/data/index.js';
import { all, errorOf, expectBadData, fixture, idx, npy, plain, scratch, spec } from './helpers.js';

const { folder, write } = scratch();
const x = [spec('x', 'float32', ['n', 3])];
const stored = fixture('stored.npz');

test('npz: arrays by name, labels beside them', async () => {
  const dataset = await openDataset(stored, x);
  expect([dataset.task, dataset.length, dataset.path, dataset.files]).toEqual([
    'classification',
    4,
    stored,
    [stored],
  ]);
  const examples = await all(dataset);
  expect(examples.map(({ label }) => label)).toEqual([2, 0, 1, 2]);
  expect(plain(examples[3].inputs.x)).toEqual({ dtype: 'float32', dims: [3], data: [9, 10, 11] });
  expect(examples[0].tokens).toBeUndefined();
});

test('a single array feeds a single input, whatever they are called', async () => {
  const dataset = await openDataset(stored, [
    spec('input.1', 'float32', ['n', 3]),
    spec('h', 'float32', [1, 'n', 2]),
  ]);
  expect(plain((await dataset.example(1)).inputs['input.1']).data).toEqual([3, 4, 5]);
  const two = [...x, spec('y', 'float32', ['n', 3])];
  await expectBadData(openDataset(stored, two), /input y .*arrays x, label/);
});

test('token ids in an array are their own labels for a language model', async () => {
  const path = write('ids.npy', npy('<u2', [2, 3], Uint16Array.of(1, 2, 3, 4, 5, 6)));
  const dataset = await openDataset(path, [spec('ids', 'int32', ['n', 's'])], { task: 'lm' });
  expect(await dataset.example(1)).toEqual({
    inputs: { ids: { dtype: 'int32', dims: [3], data: Int32Array.of(4, 5, 6) } },
    tokens: 3,
    label: { dtype: 'int64', dims: [3], data: BigInt64Array.of(4n, 5n, 6n) },
  });
});

describe('labels', () => {
  const labelled = (label: string) =>
    write('l.jsonl', [1, 2].map((v) => `{"x": [${v}, 2, 3], "label": ${label}}`).join('\n'));

  test('the task follows from them, unless it is given', async () => {
    expect((await openDataset(labelled('3'), x)).task).toBe('classification');
    expect((await openDataset(labelled('-3'), x)).task).toBe('regression');
    expect((await openDataset(labelled('0.5'), x)).task).toBe('regression');
    const given = await openDataset(labelled('3'), x, { task: 'regression' });
    expect([given.task, given.label?.(1)]).toEqual(['regression', 3]);
    const targets = await openDataset(labelled('[1, 2]'), x);
    expect([targets.task, targets.label]).toEqual(['regression', undefined]);
    expect((await targets.example(0)).label).toMatchObject({ dims: [2] });
  });

  test('classes must be class indices', async () => {
    for (const bad of ['-1', '1.5', '2147483648', '1e300', '[1, 2]'])
      await expectBadData(openDataset(labelled(bad), x, { task: 'classification' }), /label/);
    await expectBadData(openDataset(labelled('"cat"'), x), /numbers were expected.*field label/);
  });

  test('there must be one per example', async () => {
    const images = write('i.gz', gzipSync(idx([2, 1, 3], [1, 2, 3, 4, 5, 6])));
    const labels = write('l.gz', gzipSync(idx([3], [0, 1, 2])));
    await expectBadData(
      openDataset(`${images},${labels}`, x),
      /one label per example.*2 labels.*"3"/,
    );
  });
});

test('idx pairs: pixels are scaled, unless the card says otherwise', async () => {
  const images = write('images', idx([2, 1, 3], [0, 51, 255, 4, 5, 6]));
  const labels = write('labels', idx([2], [7, 1]));
  const image = [spec('image', 'float32', ['n', 1, 1, 3])];
  const dataset = await openDataset(`${images},${labels}`, image);
  const { inputs, label } = await dataset.example(0);
  expect(plain(inputs.image).dims).toEqual([1, 1, 3]);
  expect(plain(inputs.image).data.map((v) => Math.round(v * 255))).toEqual([0, 51, 255]);
  expect(inputs.image.data[1]).toBeCloseTo(0.2, 6);
  expect(label).toBe(7);
  const card = write('raw.yaml', 'file: images,labels\ninputs: {image: {scale: 1}}\n');
  expect(plain((await (await openDataset(card, image)).example(0)).inputs.image).data).toEqual([
    0, 51, 255,
  ]);
  expect((await openDataset(images, image)).task).toBe('none');
});

describe('slices', () => {
  const lengthWhere = async (where: string) => (await openDataset(stored, x, { where })).length;

  test('by label', async () => {
    expect(await lengthWhere('label=2')).toBe(2);
    expect(await lengthWhere('label!=2')).toBe(2);
    expect(await lengthWhere(' label = 0, 1 ')).toBe(2);
    const dataset = await openDataset(stored, x, { where: 'label=2' });
    expect([dataset.label?.(1), (await dataset.example(1)).inputs.x.data[0]]).toEqual([2, 9]);
    await expectBadData(openDataset(stored, x, { where: 'label=9' }), /no example is selected/);
    for (const where of ['7', 'label', 'label>2', 'label=a', 'class=2'])
      expect((await errorOf(openDataset(stored, x, { where }))).exitCode).toBe(2);
    const unlabelled = write('u.npy', npy('<f4', [1, 3], Float32Array.of(1, 2, 3)));
    await expectBadData(openDataset(unlabelled, x, { where: 'label=1' }), /no labels/);
  });

  test('by a list of indices, in its order, before the labels', async () => {
    const text = write('i.txt', '3\n1\r\n\n0\n');
    const array = write('i.npy', npy('<i8', [3], BigInt64Array.of(3n, 1n, 0n)));
    for (const indices of [text, array]) {
      const dataset = await openDataset(stored, x, { indices });
      expect((await all(dataset)).map(({ inputs }) => inputs.x.data[0])).toEqual([9, 3, 0]);
      expect(dataset.files).toEqual([stored, indices]);
      expect((await openDataset(stored, x, { indices, where: 'label=2' })).length).toBe(2);
    }
    for (const bad of ['4', '-1', '1.5', 'one'])
      await expectBadData(
        openDataset(stored, x, { indices: write('bad.txt', `0\n${bad}\n`) }),
        /entry 2/,
      );
    await expectBadData(
      openDataset(stored, x, { indices: write('none.txt', '') }),
      /no example is selected/,
    );
  });

  test('only what is selected has to be sound', async () => {
    const path = write('nan.npy', npy('<f4', [2, 3], Float32Array.of(1, NaN, 3, 4, 5, 6)));
    await expectBadData(openDataset(path, x), /NaN.*nan\.npy, example 0.*element 1/);
    const indices = write('one.txt', '1');
    expect((await openDataset(path, x, { indices })).length).toBe(1);
  });
});

test('what does not fit the model is refused at once', async () => {
  await expectBadData(
    openDataset(stored, [spec('x', 'float32', ['n', 4])]),
    /does not have the shape.*stored\.npz, array x/,
  );
  await expectBadData(openDataset(stored, [spec('x', 'string', ['n', 3])]), /of this type/);
  await expectBadData(
    openDataset(write('e.npy', npy('<f4', [0, 3], new Float32Array(0))), x),
    /no examples/,
  );
  const counts = [...x, spec('label', 'int64', ['n'])];
  expect((await openDataset(stored, counts)).task).toBe('none');
});

test('files of an unknown kind, missing ones and folders', async () => {
  await expectBadData(openDataset(write('data.csv', 'a,b'), x), /kind of data is not known.*\.npz/);
  for (const path of ['missing.npz', 'missing', 'missing.yaml', 'a.gz,b.gz'])
    expect((await errorOf(openDataset(join(folder, path), x))).exitCode).toBe(7);
  mkdirSync(join(folder, 'dir.npz'));
  expect((await errorOf(openDataset(join(folder, 'dir.npz'), x))).message).toMatch(
    /not a regular file/,
  );
});

test('hashes are those of sha256sum; of several files, of their digests', async () => {
  const sha = (data: string | Buffer) => createHash('sha256').update(data).digest('hex');
  const [a, b] = [fixture('stored.npz'), fixture('rgb.png')];
  const [one, two] = [a, b].map((file) => sha(readFileSync(file)));
  expect(await hashFiles([a])).toBe(one);
  expect(await hashFiles([a, b])).toBe(sha(`${one}\n${two}\n`));
  expect(await hashFiles([b, a])).not.toBe(await hashFiles([a, b]));
});
