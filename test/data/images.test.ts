import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { openImages } from '../../src/data/images.js';
import { openDataset } from '../../src/data/index.js';
import { all, errorOf, expectBadData, fixture, plain, scratch, spec } from './helpers.js';

const { folder, write } = scratch();
const golden = JSON.parse(readFileSync(fixture('rgb.json'), 'utf8'));
const png = (path: string) => copyFileSync(fixture('rgb.png'), join(folder, path));
const decode = async (path: string, channels: 1 | 3) => {
  const file = await openImages(path, channels);
  return plain(await (await file.column('data')).item(0));
};

beforeAll(() => {
  for (const name of ['set/10', 'set/9/deep', 'set/Z', 'flat'])
    mkdirSync(join(folder, name), { recursive: true });
  for (const path of [
    'set/10/b.png',
    'set/10/a.PNG',
    'set/9/deep/x.png',
    'set/Z/z.png',
    'flat/one.png',
  ])
    png(path);
  writeFileSync(join(folder, 'set/10/notes.txt'), 'not an image');
  writeFileSync(join(folder, 'set/10/.hidden.png'), 'not an image');
  symlinkSync('..', join(folder, 'set/9/loop'));
  symlinkSync('../Z', join(folder, 'set/10/linked'));
});

test('pixels are those that Pillow reads, in colour and grey', async () => {
  const flat = join(folder, 'flat');
  expect(await decode(flat, 3)).toEqual({ dtype: 'uint8', dims: [5, 7, 3], data: golden.rgb });
  expect(await decode(flat, 1)).toEqual({ dtype: 'uint8', dims: [5, 7, 1], data: golden.grey });
});

test('grey, transparent, palette and 16-bit files', async () => {
  const rgb = Buffer.from(golden.rgb);
  const raw = { raw: { width: 7, height: 5, channels: 3 as const } };
  const grey = Buffer.from(golden.grey);
  const files = {
    alpha: [await sharp(rgb, raw).ensureAlpha(0.5).png().toBuffer(), golden.rgb],
    deep: [await sharp(rgb, raw).toColourspace('rgb16').png().toBuffer(), golden.rgb],
    palette: [await sharp(rgb, raw).png({ palette: true, colours: 256 }).toBuffer(), golden.rgb],
    grey: [
      await sharp(grey, { raw: { width: 7, height: 5, channels: 1 } })
        .toColourspace('b-w')
        .png()
        .toBuffer(),
      golden.grey.flatMap((v: number) => [v, v, v]),
    ],
  };
  for (const [name, [content, expected]] of Object.entries(files)) {
    mkdirSync(join(folder, name));
    write(`${name}/image.png`, content);
    const { dims, data } = await decode(join(folder, name), 3);
    expect([name, dims]).toEqual([name, [5, 7, 3]]);
    const off = data.map((v, i) => Math.abs(v - expected[i]));
    expect([name, Math.max(...off) <= 2]).toEqual([name, true]);
  }
});

test('class folders in code-unit order give the labels, links are followed once', async () => {
  const dataset = await openDataset(join(folder, 'set'), [
    spec('image', 'float32', ['n', 1, 5, 7]),
  ]);
  expect(dataset.task).toBe('classification');
  const labels = (await all(dataset)).map(({ label }) => label);
  // '10' holds a.PNG, b.png and the linked z.png; '9' reaches the whole set through its loop.
  expect(labels.slice(0, 3)).toEqual([0, 0, 0]);
  expect(labels.filter((label) => label === 2)).toEqual([2]);
  expect(dataset.files.slice(0, 2).map((file) => file.slice(-8))).toEqual(['10/a.PNG', '10/b.png']);
  const { inputs } = await dataset.example(0);
  expect(plain(inputs.image).data[1]).toBeCloseTo(golden.grey[1] / 255, 6);
});

test('images are resized to the model, in its layout, and the card normalises them', async () => {
  write('card.yaml', 'file: flat\ninputs: {image: {mean: [0.5, 0.5, 0.5], std: [2]}}\n');
  const nhwc = await openDataset(join(folder, 'card.yaml'), [
    spec('image', 'float32', [1, 10, 14, 3]),
  ]);
  expect(nhwc.task).toBe('none');
  const { image } = (await nhwc.example(0)).inputs;
  expect(image.dims).toEqual([10, 14, 3]);
  const red = plain(image).data.filter((_, i) => i % 3 === 0);
  for (const [i, value] of golden['red resized']['10x14'].entries())
    expect(red[i]).toBeCloseTo((value / 255 - 0.5) / 2, 4);

  write('open.yaml', 'file: flat\ninputs: {image: {layout: NHWC, channels: 1, resize: [3, 4]}}\n');
  const open = await openDataset(join(folder, 'open.yaml'), [
    spec('image', 'float32', ['', '', '', '']),
  ]);
  expect((await open.example(0)).inputs.image.dims).toEqual([3, 4, 1]);
});

test('bytes for an integer input are not scaled', async () => {
  const dataset = await openDataset(join(folder, 'flat'), [spec('image', 'uint8', ['n', 5, 7, 3])]);
  expect(plain((await dataset.example(0)).inputs.image).data).toEqual(golden.rgb);
});

test('what cannot be read is reported', async () => {
  mkdirSync(join(folder, 'bad'));
  write('bad/broken.png', readFileSync(fixture('rgb.png')).subarray(0, 80));
  const image = [spec('image', 'float32', ['n', 3, 5, 7])];
  await expectBadData(openDataset(join(folder, 'bad'), image), /cannot be decoded.*broken\.png/);
  mkdirSync(join(folder, 'links'));
  symlinkSync('itself', join(folder, 'links/itself'));
  expect((await errorOf(openDataset(join(folder, 'links'), image))).exitCode).toBe(7);
  mkdirSync(join(folder, 'none'));
  await expectBadData(openDataset(join(folder, 'none'), image), /no examples/);
  await expectBadData(
    openDataset(join(folder, 'flat'), [spec('x', 'float32', ['n', 4])]),
    /no input for images/,
  );
  await expectBadData(
    openDataset(join(folder, 'flat'), [spec('x', 'float32', ['n', 8, 5, 7])]),
    /grey or RGB/,
  );
});
