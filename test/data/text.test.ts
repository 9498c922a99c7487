import { readFileSync } from 'node:fs';
import { openDataset } from '../../src/data/index.js';
import { cutWindows, loadTokenizer, truncate } from '../../src/data/text.js';
import { all, errorOf, expectBadData, fixture, plain, scratch, spec } from './helpers.js';

const { write } = scratch();
const tokenizer = fixture('tokenizer.json');
const golden = JSON.parse(readFileSync(fixture('tokenizer.expected.json'), 'utf8'));
const lm = [spec('input_ids', 'int64', ['batch', 'seq'])];
const definition = JSON.parse(readFileSync(tokenizer, 'utf8'));
const template = write(
  'template.json',
  JSON.stringify({
    ...definition,
    post_processor: {
      type: 'TemplateProcessing',
      single: [
        { SpecialToken: { id: '<|endoftext|>', type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { SpecialToken: { id: '<|endoftext|>', type_id: 0 } },
      ],
      pair: [],
      special_tokens: {
        '<|endoftext|>': { id: '<|endoftext|>', ids: [0], tokens: ['<|endoftext|>'] },
      },
    },
  }),
);

describe('tokenizer', () => {
  test('ids are those of the reference implementation', async () => {
    const { encode } = await loadTokenizer(tokenizer);
    expect(Array.from(encode(golden.text))).toEqual(golden.ids);
  });

  test('special tokens are added, and kept when the text is cut', async () => {
    const { encode, encodeTruncated } = await loadTokenizer(template);
    expect(Array.from(encode(golden.text))).toEqual(golden['with template']);
    expect(Array.from(encodeTruncated(golden.text, 20))).toEqual(golden['truncated to 20']);
    expect(encodeTruncated('a', 20).length).toBe(3);
  });

  test('the padding id is the tokenizer’s, or 0', async () => {
    expect((await loadTokenizer(tokenizer)).padding).toBe(0);
    const named = {
      ...definition,
      added_tokens: [{ ...definition.added_tokens[0], id: 7, content: '<pad>' }],
    };
    expect((await loadTokenizer(write('named.json', JSON.stringify(named)))).padding).toBe(7);
    const stated = { ...definition, padding: { pad_id: 9 } };
    expect((await loadTokenizer(write('stated.json', JSON.stringify(stated)))).padding).toBe(9);
  });

  test('a file that is no tokenizer is refused', async () => {
    await expectBadData(loadTokenizer(write('a.json', '{')), /not a usable tokenizer/);
    await expectBadData(
      loadTokenizer(write('b.json', '{"model": {"type": "None"}}')),
      /not a usable tokenizer/,
    );
    await expectBadData(loadTokenizer(write('c.json', 'null')), /not a usable tokenizer/);
  });
});

test('windows lie side by side, and a last one of two tokens is kept', () => {
  const ranges = (lengths: number[], size: number) =>
    cutWindows(lengths, size).map(({ text, start, end }) => [text, start, end]);
  expect(ranges([10, 1, 4], 4)).toEqual([
    [0, 0, 4],
    [0, 4, 8],
    [0, 8, 10],
    [2, 0, 4],
  ]);
  expect(ranges([9], 4)).toEqual([
    [0, 0, 4],
    [0, 4, 8],
  ]);
});

test('truncation keeps what comes after the text', () => {
  const cut = (ids: number[], text: number[], length: number) =>
    Array.from(truncate(Int32Array.from(ids), () => Int32Array.from(text), length));
  expect(cut([1, 5, 6, 7, 2], [5, 6, 7], 4)).toEqual([1, 5, 6, 2]);
  expect(cut([5, 6, 7, 2], [5, 6, 7], 2)).toEqual([5, 2]);
  expect(cut([1, 5, 6, 7], [5, 6, 7], 2)).toEqual([1, 5]);
  expect(cut([1, 5, 2], [5], 3)).toEqual([1, 5, 2]);
});

describe('text as a data set', () => {
  test('plain text is one stream of tokens', async () => {
    const path = write('a.txt', golden.text);
    write('card.yaml', 'file: a.txt\ntask: lm\ntokenizer: ../tok.json\nsequence: 100\n');
    const dataset = await openDataset(path, lm, { tokenizer });
    expect([dataset.task, dataset.length, dataset.label]).toEqual(['lm', 2, undefined]);
    expect(dataset.files).toEqual([path, tokenizer]);
    const [first, second] = await all(dataset);
    expect([first.tokens, second.tokens]).toEqual([128, golden.ids.length - 128]);
    expect([...plain(first.inputs.input_ids).data, ...plain(second.inputs.input_ids).data]).toEqual(
      golden.ids,
    );
    expect(first.label).toEqual({ ...first.inputs.input_ids, dims: [128] });
  });

  test('a card names tokenizer, sequence and roles', async () => {
    write('t.json', JSON.stringify(definition));
    write('b.txt', golden.text);
    const card = write(
      'b.yaml',
      'file: b.txt\ntask: lm\ntokenizer: t.json\nsequence: 40\n' +
        'inputs:\n  a: {tokens: mask}\n  b: {tokens: ids}\n  c: {tokens: positions}\n  d: {tokens: segments}\n',
    );
    const specs = ['a', 'b', 'c', 'd'].map((name) => spec(name, 'int32', ['n', 's']));
    const dataset = await openDataset(card, specs);
    expect(dataset.files.map((file) => file.split('/').at(-1))).toEqual([
      'b.txt',
      't.json',
      'b.yaml',
    ]);
    const { inputs } = await dataset.example(1);
    expect(plain(inputs.a).data).toEqual(new Array(40).fill(1));
    expect(plain(inputs.b).data).toEqual(golden.ids.slice(40, 80));
    expect(plain(inputs.c).data).toEqual([...Array(40).keys()]);
    expect(plain(inputs.d).data).toEqual(new Array(40).fill(0));
  });

  test('the model’s fixed length is the default, and a limit', async () => {
    const fixed = [spec('input_ids', 'int64', ['n', 50])];
    const path = write('c.txt', golden.text);
    const dataset = await openDataset(path, fixed, { tokenizer });
    expect((await dataset.example(0)).tokens).toBe(50);
    write('c.json', JSON.stringify(definition));
    const card = write('c.yaml', 'file: c.txt\ntokenizer: c.json\nsequence: 60\n');
    await expectBadData(openDataset(card, fixed), /longer than the model takes/);
  });

  test('records with labels are examples of their own', async () => {
    const path = write(
      'd.jsonl',
      `{"text": "Call me", "label": 2}\n\n{"text": ${JSON.stringify(golden.text)}, "label": 0}\n`,
    );
    const dataset = await openDataset(path, [spec('input_ids', 'int64', ['n', 20])], {
      tokenizer: template,
    });
    expect([dataset.task, dataset.length, dataset.label?.(0)]).toEqual(['classification', 2, 2]);
    const { inputs, tokens, label } = await dataset.example(1);
    expect(plain(inputs.input_ids).data).toEqual(golden['truncated to 20']);
    expect([tokens, label]).toEqual([20, 0]);
  });

  test('records without labels are cut into windows each', async () => {
    const path = write('e.jsonl', '{"text": "Call me Ishmael."}\n{"text": "Some years ago"}\n');
    const [a, b] = await all(await openDataset(path, lm, { tokenizer }));
    expect(a.tokens).not.toBe(b.tokens);
    expect(
      (await openDataset(fixture('snappy.parquet'), lm, { tokenizer, task: 'lm' })).length,
    ).toBe(5);
  });

  test('what is missing or wrong is named', async () => {
    const path = write('f.txt', 'Call me');
    const error = await errorOf(openDataset(path, lm));
    expect([error.exitCode, error.detail.hint]).toEqual([
      2,
      expect.stringContaining('--tokenizer'),
    ]);
    await expectBadData(openDataset(write('g.txt', ''), lm, { tokenizer }), /no examples/);
    await expectBadData(
      openDataset(write('h.txt', Buffer.from([0xff, 0xfe])), lm, { tokenizer }),
      /not UTF-8/,
    );
    await expectBadData(
      openDataset(path, [spec('x', 'float32', ['n', 3])], { tokenizer }),
      /no input for token ids/,
    );
    const more = [...lm, spec('pixel_values', 'float32', ['n', 3, 8, 8])];
    await expectBadData(openDataset(path, more, { tokenizer }), /input pixel_values/);
    const missing = await errorOf(openDataset('no-such.txt', lm, { tokenizer }));
    expect(missing.exitCode).toBe(7);
  });
});
