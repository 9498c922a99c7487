import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inRepository } from './cli.js';
import { type BadData, badArrays, file } from './malformed-arrays.js';
import { npy, npz } from './npz.js';

/** A data card, beside the files of the fixture that it may name by an absolute path. */
const card = (
  name: string,
  content: string,
  says: RegExp,
  options: { code?: number; model?: BadData['model'] } = {},
): BadData =>
  file(
    name,
    'card.yaml',
    () => content.replaceAll('FIXTURES', inRepository('fixtures')),
    says,
    options,
  );

/** An image file of the given size, of which only the header is true. */
function png(width: number, height: number): Buffer {
  const bytes = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==',
    'base64',
  );
  bytes.writeUInt32BE(width, 16);
  bytes.writeUInt32BE(height, 20);
  return bytes;
}

const folderOf = (
  name: string,
  fill: (folder: string) => void,
  says: RegExp,
  code = 6,
): BadData => ({
  name: `a folder: ${name}`,
  model: 'resnet8',
  code,
  says,
  make(folder) {
    const root = join(folder, 'photos');
    mkdirSync(join(root, 'boots'), { recursive: true });
    mkdirSync(join(root, 'coats'), { recursive: true });
    fill(root);
    return ['--data', root];
  },
});

const folders: BadData[] = [
  folderOf('no images', () => {}, /photos/),
  folderOf(
    'text in a .png',
    (f) => writeFileSync(join(f, 'boots/a.png'), 'hello'),
    /boots\/a\.png/,
  ),
  folderOf('an empty .jpg', (f) => writeFileSync(join(f, 'boots/a.jpg'), ''), /boots\/a\.jpg/),
  folderOf(
    'an image of 60000 x 60000',
    (f) => writeFileSync(join(f, 'boots/a.png'), png(60000, 60000)),
    /boots\/a\.png/,
  ),
  folderOf('a pipe', (f) => execFileSync('mkfifo', [join(f, 'boots/a.png')]), /photos|a\.png/),
  folderOf('a link to its own parent', (f) => symlinkSync('..', join(f, 'boots/up')), /photos/),
  folderOf('a link to nothing', (f) => symlinkSync('nowhere', join(f, 'boots/a.png')), /a\.png/, 7),
];

const text = {
  model: 'gpt-moby' as const,
  flags: ['--tokenizer', inRepository('fixtures/gpt-moby/tokenizer.json')],
};

const records: BadData[] = [
  file('empty', 'data.jsonl', () => '', /data\.jsonl/),
  file(
    'not JSON on line 3',
    'data.jsonl',
    () => '{"image": 1}\n{"image": 2}\n{"image": \n',
    /data\.jsonl:3/,
  ),
  file('a list on line 2', 'data.jsonl', () => '{"image": 1}\n[1]\n', /data\.jsonl:2/),
  file(
    'ragged lists',
    'data.jsonl',
    () => '{"image": [[1, 2], [3]], "label": 1}\n',
    /data\.jsonl:1/,
  ),
  file(
    'lists nested 100,000 deep',
    'data.jsonl',
    () => `{"image": ${'['.repeat(1e5)}${']'.repeat(1e5)}}\n`,
    /data\.jsonl/,
  ),
  file('not UTF-8', 'data.jsonl', () => Uint8Array.of(0x7b, 0xff, 0xfe), /UTF-8/),
  file(
    'a field that later lines lack',
    'data.jsonl',
    () => '{"text": "one two three", "label": 1}\n{"label": 1}\n',
    /data\.jsonl:2/,
    text,
  ),
  file('a number for text', 'data.jsonl', () => '{"text": 5}\n', /data\.jsonl:1/, text),
  file('no tokenizer', 'data.txt', () => 'Call me Ishmael.', /tokenizer/, {
    code: 2,
    model: 'gpt-moby',
  }),
  file('no text', 'data.txt', () => '', /data\.txt/, text),
  file('one character', 'data.txt', () => '.', /data\.txt/, text),
  file('not UTF-8', 'data.txt', () => Uint8Array.of(0x41, 0xff, 0x42), /UTF-8/, text),
  file('text for a model of images', 'data.txt', () => 'Call me Ishmael. '.repeat(50), /image/, {
    ...text,
    model: 'resnet8',
  }),
  ...(['{', '[]', '{}', '{"model": {"type": "BPE"}}', 'null'] as const).map(
    (content): BadData => ({
      name: `a tokenizer that is ${content}`,
      model: 'gpt-moby',
      code: 6,
      says: /tokenizer\.json/,
      make(folder) {
        writeFileSync(join(folder, 'data.txt'), 'Call me Ishmael.');
        writeFileSync(join(folder, 'tokenizer.json'), content);
        return ['--data', join(folder, 'data.txt'), '--tokenizer', join(folder, 'tokenizer.json')];
      },
    }),
  ),
  file(
    'tokens beyond the vocabulary',
    'data.npz',
    () => npz({ input_ids: npy('<i8', [1, 4], BigInt64Array.of(1n, 2n, 5000n, 3n)) }),
    /data\.npz|input_ids/,
    { model: 'gpt-moby', flags: ['--task', 'lm'], code: 6 },
  ),
  file('empty', 'data.parquet', () => '', /data\.parquet/),
  file('text', 'data.parquet', () => 'PAR1 this is not a table PAR1', /data\.parquet/),
  file(
    'cut in half',
    'data.parquet',
    () => readFileSync(inRepository('fixtures/data/snappy.parquet')).subarray(0, 1200),
    /data\.parquet/,
  ),
  file(
    'a footer that lies about its length',
    'data.parquet',
    () => {
      const bytes = Buffer.from(readFileSync(inRepository('fixtures/data/snappy.parquet')));
      bytes.writeUInt32LE(0x7fffffff, bytes.length - 8);
      return bytes;
    },
    /data\.parquet/,
  ),
];

const npzCard = 'file: FIXTURES/resnet8/test.npz\n';
const cards: BadData[] = [
  card('not YAML', 'file: [\n', /card\.yaml/),
  card('empty', '', /card\.yaml/),
  card('an unknown key', `${npzCard}frobnicate: 1\n`, /card\.yaml[\s\S]*frobnicate/),
  card('a wrong type', 'file: 7\n', /card\.yaml[\s\S]*file/),
  card('a file that is missing', 'file: nowhere.npz\n', /nowhere\.npz/, { code: 7 }),
  card('itself', 'file: card.yaml\n', /card\.yaml/),
  card(
    'a bomb of aliases',
    `a0: &a0 [x, x, x, x, x, x, x, x, x]\n${Array.from(
      { length: 9 },
      (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(8)}*a${i}]`,
    ).join('\n')}\nfile: x.npz\n`,
    /card\.yaml/,
  ),
  card('an unknown input', `${npzCard}inputs: {picture: {array: image}}\n`, /picture/),
  card('an unknown array', `${npzCard}inputs: {image: {array: photo}}\n`, /photo/),
  card('a deviation of 0', `${npzCard}inputs: {image: {array: image, std: 0}}\n`, /std/),
  card(
    'a scale that is not a number',
    `${npzCard}inputs: {image: {array: image, scale: .nan}}\n`,
    /scale/,
  ),
  card(
    'two means for one channel',
    `${npzCard}inputs: {image: {array: image, mean: [1, 2]}}\n`,
    /mean/,
  ),
  card(
    'a size of 10^9',
    `${npzCard}inputs: {image: {array: image, resize: [1000000000, 28]}}\n`,
    /resize/,
  ),
  card(
    'a size that does not fit',
    `${npzCard}inputs: {image: {array: image, resize: [65536, 65536]}}\n`,
    /image|resize/,
  ),
  card('an unknown column of labels', `${npzCard}labels: classes\n`, /classes/),
];

const test = inRepository('fixtures/resnet8/test.yaml');
const slice = (name: string, flags: string[], says: RegExp, code = 6): BadData => ({
  name,
  model: 'resnet8',
  code,
  says,
  make: () => ['--data', test, ...flags],
});
const indices = (name: string, content: string, says: RegExp): BadData => ({
  name: `--indices: ${name}`,
  model: 'resnet8',
  code: 6,
  says,
  make(folder) {
    writeFileSync(join(folder, 'list.txt'), content);
    return ['--data', test, '--indices', join(folder, 'list.txt')];
  },
});

const slices: BadData[] = [
  slice('--where: a label that is not there', ['--where', 'label=77'], /label=77/),
  slice('--where: not understood', ['--where', 'weekday'], /--where[\s\S]*weekday/, 2),
  slice('--indices: no such file', ['--indices', 'nowhere.txt'], /nowhere\.txt/, 7),
  slice('--task: regression on classes of ten outputs', ['--task', 'regression'], /./),
  slice('--task: a language model of images', ['--task', 'lm'], /./),
  indices('out of range', '0\n2000\n', /list\.txt, entry 2/),
  indices('negative', '-1\n', /list\.txt, entry 1/),
  indices('not whole', '1.5\n', /list\.txt, entry 1/),
  indices('words', 'one\ntwo\n', /list\.txt, entry 1/),
  indices('empty', '\n', /list\.txt/),
];

const places: BadData[] = [
  {
    name: 'no such file',
    model: 'resnet8',
    code: 7,
    says: /nowhere\.npz/,
    make: () => ['--data', 'nowhere.npz'],
  },
  {
    name: 'a pipe',
    model: 'resnet8',
    code: 7,
    says: /data\.npz/,
    make(folder) {
      execFileSync('mkfifo', [join(folder, 'data.npz')]);
      return ['--data', join(folder, 'data.npz')];
    },
  },
  {
    name: 'a device without end',
    model: 'resnet8',
    code: 7,
    says: /data\.npy/,
    make(folder) {
      symlinkSync('/dev/zero', join(folder, 'data.npy'));
      return ['--data', join(folder, 'data.npy')];
    },
  },
  file('an unknown kind', 'data.csv', () => 'a,b\n1,2\n', /data\.csv/),
];

export const badData: BadData[] = [
  ...badArrays,
  ...folders,
  ...records,
  ...cards,
  ...slices,
  ...places,
];
