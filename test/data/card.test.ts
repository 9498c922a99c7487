import { readCard } from '../../src/data/card.js';
import { openDataset } from '../../src/data/index.js';
import { expectBadData, fixture, npy, plain, scratch, spec } from './helpers.js';

const { folder, write } = scratch();

test('paths are relative to the card', async () => {
  const card = await readCard(write('a.yaml', 'file: a.gz,/data/b.gz\ntokenizer: sub/t.json\n'));
  expect(card).toEqual({ file: `${folder}/a.gz,/data/b.gz`, tokenizer: `${folder}/sub/t.json` });
});

test.each([
  ['inputs:\n  image: {scal: 2}', /inputs\.image\.scal: no such key/],
  ['colour: red', /colour: no such key/],
  ['task: vision', /task: /],
  ['inputs: {x: {layout: HWC}}', /inputs\.x\.layout/],
  ['inputs: {x: {resize: [3]}}', /inputs\.x\.resize/],
  ['inputs: {x: {resize: [0, 3]}}', /inputs\.x\.resize/],
  ['inputs: {x: {mean: []}}', /inputs\.x\.mean/],
  ['inputs: {x: {array: a, value: 1}}', /inputs\.x: takes only one of array and value/],
  ['inputs: {x: {tokens: ids, scale: 2}}', /inputs\.x\.scale: does not apply to tokens/],
  ['inputs: {x: {value: [1, hello]}}', /inputs\.x\.value/],
  ['inputs: {x: {channels: 2}}', /inputs\.x\.channels/],
  ['sequence: 1', /sequence/],
  ['inputs: [', /not YAML/],
])('%s is refused by its key', async (text, message) => {
  await expectBadData(readCard(write('bad.yaml', `file: a.npz\n${text}\n`)), message);
});

test('a card without a file, of a card, or of aliases that multiply', async () => {
  await expectBadData(readCard(write('b.yaml', 'task: lm\n')), /file: /);
  await expectBadData(readCard(write('c.yaml', '')), /the card: /);
  await expectBadData(readCard(write('d.yaml', 'file: e.yml\n')), /not another card/);
  const bomb = [
    'a0: &a0 [x]',
    ...Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(9).fill(`*a${i}`)}]`),
  ];
  await expectBadData(readCard(write('bomb.yaml', bomb.join('\n'))), /not YAML/);
});

describe('with data', () => {
  const array = npy('|u1', [2, 2, 2, 1], Uint8Array.from([0, 1, 2, 3, 4, 5, 6, 255]));
  write('x.npy', array);
  const specs = [
    spec('image', 'float32', ['n', 1, 2, 2]),
    spec('sr', 'int64', []),
    spec('w', 'float32', ['n', 2]),
  ];

  test('arrays, preprocessing and constants', async () => {
    const card = write(
      'e.yaml',
      'file: x.npy\ntask: none\ninputs:\n' +
        '  image: {array: data, scale: 0.5, mean: [1], std: 2, layout: NHWC}\n' +
        '  sr: {value: 8000}\n  w: {value: [1, 2.5]}\n',
    );
    const dataset = await openDataset(card, specs);
    expect(plain((await dataset.example(1)).inputs.image)).toEqual({
      dtype: 'float32',
      dims: [1, 2, 2],
      data: [0.5, 0.75, 1, 63.25],
    });
    expect(dataset.constants).toEqual({
      sr: 8000,
      w: { dtype: 'float32', dims: [2], data: Float32Array.of(1, 2.5) },
    });
    expect(dataset.files).toEqual([`${folder}/x.npy`, card]);
  });

  test('task and tokenizer of the command line win', async () => {
    const card = write('f.yaml', 'file: x.npy\ntask: none\n');
    const dataset = await openDataset(card, specs.slice(0, 1), { task: 'regression' });
    expect(dataset.task).toBe('regression');
  });

  test.each([
    ['inputs: {images: {scale: 2}}', /no such input.*one of image, sr, w/],
    ['inputs: {image: {array: pixels}}', /no array or field `pixels`.*one of data/],
    ['labels: y', /no array or field `y`/],
    ['inputs: {w: {value: [1, 2, 3]}}', /does not have the shape.*inputs\.w\.value/],
    ['inputs: {sr: {value: 0.5}}', /does not fit.*inputs\.sr\.value/],
    ['inputs: {image: {channels: 3}, w: {value: 0}}', /`channels` applies to image files/],
    ['inputs: {image: {tokens: ids}}', /inputs\.image\.tokens.*applies to text/],
    ['sequence: 8', /`sequence` applies to text/],
    ['inputs: {image: {value: 0}, w: {value: 0}}', /nothing in the data varies/],
  ])('%s does not fit the data', async (text, message) => {
    const card = write('g.yaml', `file: x.npy\n${text}\n`);
    await expectBadData(openDataset(card, specs), message);
  });

  test('a missing data file is an I/O error', async () => {
    const card = write('h.yaml', 'file: nowhere.npz\n');
    await expect(openDataset(card, specs)).rejects.toMatchObject({ exitCode: 7 });
  });
});

test('the shipped image fixture reads through its card', async () => {
  const card = write(
    'fashion.yaml',
    `file: ${process.cwd()}/fixtures/resnet8/test.npz\ntask: classification\n` +
      'inputs:\n  image: { array: image, scale: 0.00392156862745098, mean: [0.2860], std: [0.3530] }\nlabels: label\n',
  );
  const dataset = await openDataset(card, [spec('image', 'float32', ['batch', 1, 28, 28])], {
    where: 'label=7',
  });
  expect([dataset.length, dataset.task, dataset.label?.(0)]).toEqual([200, 'classification', 7]);
  const { image } = (await dataset.example(0)).inputs;
  expect(image.dims).toEqual([1, 28, 28]);
  expect(image.data[0]).toBeCloseTo(-0.286 / 0.353, 6);
  expect(fixture('x')).toBe('fixtures/data/x');
});
