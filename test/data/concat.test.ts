import { concat, type Dataset } from '../../src/data/index.js';
import { slice } from '../../src/data/slices.js';

const numbers = (path: string, values: number[], more: Partial<Dataset> = {}): Dataset => ({
  path,
  task: 'regression',
  length: values.length,
  files: [path],
  example: async (i) => ({ inputs: {}, label: values[i] }),
  label: (i) => values[i],
  ...more,
});

describe('one after the other', () => {
  test('examples, labels and files', async () => {
    const both = concat(numbers('a', [1, 2]), numbers('b', [3]));
    expect(both).toMatchObject({ path: 'a, b', length: 3, files: ['a', 'b'] });
    expect([0, 1, 2].map((i) => both.label?.(i))).toEqual([1, 2, 3]);
    expect((await both.example(2)).label).toBe(3);
    expect(concat(both, numbers('c', [4], { label: undefined })).label).toBeUndefined();
  });

  const mask = (...data: number[]) => ({
    constants: {
      m: { dtype: 'int64' as const, dims: [2], data: BigInt64Array.from(data, BigInt) },
    },
  });
  test.each([
    ['numbers', { constants: { t: 1 } }, { constants: { t: 2 } }],
    ['tensors', mask(1, 2), mask(1, 3)],
    ['a number and none', { constants: { t: 1 } }, {}],
    ['padding', { padding: { ids: 1 } }, {}],
  ])('data that disagrees is refused: %s', (_, a, b) => {
    const [first, second] = [numbers('a', [1], a), numbers('b', [2], b)];
    expect(() => concat(first, second)).toThrow(/read as one/);
    expect(() => concat(second, first)).toThrow(/read as one/);
    expect(concat(first, numbers('c', [2], a)).length).toBe(2);
  });
  test('padding with zeros is what is done without', () => {
    expect(concat(numbers('a', [1], { padding: { ids: 0 } }), numbers('b', [2])).length).toBe(2);
  });
});

describe('labels that are no integers', () => {
  const rounded = numbers('a', Array.from(Float32Array.of(0.1, 0.5, -2.5)));
  test.each([
    ['label=0.1', 1],
    ['label=0.1, -2.5', 2],
    ['label!=0.5', 2],
  ])('%s', async (where, length) => {
    expect((await slice(rounded, { where })).length).toBe(length);
    if (length < 3)
      expect((await slice(rounded, { where, complement: true })).length).toBe(3 - length);
  });
  test('what is no number is refused', async () => {
    await expect(slice(rounded, { where: 'label=1.2.3' })).rejects.toMatchObject({
      exitCode: 2,
      detail: { got: '1.2.3' },
    });
  });
});
