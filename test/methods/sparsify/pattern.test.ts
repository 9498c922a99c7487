import { parsePattern, patternMisfit, zerosPerRow } from '../../../src/methods/sparsify/pattern.js';

test.each([
  ['0', { kind: 'unstructured', sparsity: 0 }],
  ['0.6', { kind: 'unstructured', sparsity: 0.6 }],
  ['.5', { kind: 'unstructured', sparsity: 0.5 }],
  ['1e-3', { kind: 'unstructured', sparsity: 0.001 }],
  ['2:4', { kind: 'nm', n: 2, m: 4 }],
  ['1:4', { kind: 'nm', n: 1, m: 4 }],
])('%s', (text, pattern) => {
  expect(parsePattern(text)).toEqual(pattern);
});

test.each([
  '',
  '1',
  '1.5',
  '-0.1',
  'NaN',
  '60%',
  '0x1',
  '4:4',
  '0:4',
  '5:4',
  '2:',
  '2:4:8',
  '1:9999999',
])('%s is refused', (text) => {
  expect(() => parsePattern(text)).toThrow(expect.objectContaining({ exitCode: 2 }));
});

test('zeros per row are truncated', () => {
  expect(zerosPerRow({ kind: 'unstructured', sparsity: 0.29 }, 100)).toBe(28);
  expect(zerosPerRow({ kind: 'unstructured', sparsity: 0.6 }, 64)).toBe(38);
  expect(zerosPerRow({ kind: 'nm', n: 1, m: 4 }, 64)).toBe(16);
});

test('groups must divide the inputs', () => {
  expect(patternMisfit({ kind: 'nm', n: 2, m: 4 }, 64)).toBeUndefined();
  expect(patternMisfit({ kind: 'nm', n: 2, m: 4 }, 66)).toContain('66');
  expect(patternMisfit({ kind: 'nm', n: 2, m: 4 }, 2)).toBeDefined();
  expect(patternMisfit({ kind: 'unstructured', sparsity: 0.5 }, 3)).toBeUndefined();
});
