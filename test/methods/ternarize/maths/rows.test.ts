import fc from 'fast-check';
import { codeRows } from '../../../../src/methods/ternarize/maths/code-rows.js';
import type { Granularity } from '../../../../src/methods/ternarize/maths/codes.js';
import {
  makeQuantizer,
  quantizerNames,
} from '../../../../src/methods/ternarize/maths/quantizers.js';
import { fitRows } from '../../../../src/methods/ternarize/maths/rows.js';
import { codesFor, decoded, layerOf, randomLayer } from './support.js';

const fit = makeQuantizer('fit');

test('each group is fitted by itself, and a tail to the weights it has', () => {
  const layer = layerOf(2, [1, 1, -1, 5, 0, 5, -3, 0.5, 0.5, 0.5, 2, 2, 2, 8]);
  const codes = codesFor(layer, { group: 3 });
  fitRows(layer, codes, fit);
  expect(codes).toMatchObject({ group: 3, groups: 3, shared: false });
  expect(codes.scales).toEqual(Float32Array.of(1, 5, 3, 0.5, 2, 8));
  expect(decoded(codes)).toEqual(Float64Array.from(layer.w));
});

test('a group larger than the row is the row', () => {
  const layer = randomLayer(3, 20, 1);
  const wide = codesFor(layer, { group: 128 });
  const channel = codesFor(layer, 'channel');
  fitRows(layer, wide, fit);
  fitRows(layer, channel, fit);
  expect(wide).toEqual(channel);
  expect(wide.groups).toBe(1);
});

test.each(['fit', 'asymmetric'] as const)(
  '%s: levels of the tensor are those of one group',
  (name) => {
    const layer = randomLayer(6, 21, 2);
    const quantizer = makeQuantizer(name);
    const codes = codesFor(layer, 'tensor', quantizer.offsets);
    fitRows(layer, codes, quantizer);
    const line = { ...layer, rows: 1, cols: layer.w.length };
    const row = codesFor(line, 'channel', quantizer.offsets);
    fitRows(line, row, quantizer);
    expect(codes.codes).toEqual(row.codes);
    expect(codes.scales).toEqual(new Float32Array(6).fill(row.scales[0]));
    expect(codes.offsets).toEqual(row.offsets && new Float32Array(6).fill(row.offsets[0]));
    expect(() => fitRows(layer, codes, quantizer, undefined, { from: 0, to: 3 })).toThrow(
      'all rows',
    );
  },
);

test('importance is repeated for every row', () => {
  const layer = randomLayer(4, 10, 3);
  const importance = Float64Array.from({ length: 10 }, (_, i) => i % 3);
  for (const granularity of ['tensor', 'channel'] as Granularity[]) {
    const codes = codesFor(layer, granularity);
    fitRows(layer, codes, fit, importance);
    // Weights of no importance do not count: any value of theirs gives the same scales.
    const other = { ...layer, w: layer.w.map((x, k) => ((k % 10) % 3 === 0 ? 9 * x : x)) };
    const otherCodes = codesFor(layer, granularity);
    fitRows(other, otherCodes, fit, importance);
    expect(otherCodes.scales).toEqual(codes.scales);
  }
});

test('rows can be coded in any division', () => {
  const layer = randomLayer(7, 19, 4);
  for (const quantizer of quantizerNames) {
    const offsets = makeQuantizer(quantizer).offsets;
    const whole = codesFor(layer, { group: 5 }, offsets);
    const parts = codesFor(layer, { group: 5 }, offsets);
    const task = { layer, quantizer, method: 'fit' } as const;
    codeRows(task, whole);
    codeRows(task, parts, { from: 3, to: 7 });
    codeRows(task, parts, { from: 0, to: 3 });
    expect(parts).toEqual(whole);
    expect(whole.offsets === undefined).toBe(quantizer !== 'asymmetric');
  }
});

test('zero rows stay zero', () => {
  const layer = randomLayer(3, 16, 5);
  layer.w.fill(0, 16, 32);
  const codes = codesFor(layer, { group: 8 });
  fitRows(layer, codes, fit);
  expect(decoded(codes).subarray(16, 32)).toEqual(new Float64Array(16));
  expect(codes.scales.subarray(2, 4)).toEqual(new Float32Array(2));
});

test.each([Number.NaN, Infinity, -Infinity])('%p is refused with its place', (bad) => {
  const layer = randomLayer(3, 8, 6);
  layer.w[13] = bad;
  expect(() => fitRows(layer, codesFor(layer, 'channel'), fit)).toThrow(
    expect.objectContaining({
      exitCode: 5,
      detail: expect.objectContaining({ where: 'layer, output 1, input 5', got: String(bad) }),
    }),
  );
  // A worker only looks at its own rows.
  fitRows(layer, codesFor(layer, 'channel'), fit, undefined, { from: 2, to: 3 });
});

test('group sizes that make no sense are refused', () => {
  for (const group of [0, -1, 1.5, Number.NaN]) {
    expect(() => codesFor({ ...randomLayer(1, 4, 7) }, { group })).toThrow('group size');
  }
});

test('any shape is coded', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 5 }),
      fc.integer({ min: 0, max: 40 }),
      fc.constantFrom(...quantizerNames),
      fc.oneof(
        fc.constantFrom<Granularity>('tensor', 'channel'),
        fc.record({ group: fc.integer({ min: 1, max: 50 }) }),
      ),
      (rows, cols, name, granularity) => {
        const layer = randomLayer(rows, cols, rows + cols);
        const quantizer = makeQuantizer(name);
        const codes = codesFor(layer, granularity, quantizer.offsets);
        fitRows(layer, codes, quantizer);
        expect(codes.scales.length).toBe(rows * codes.groups);
        expect(decoded(codes).every(Number.isFinite)).toBe(true);
      },
    ),
  );
});
