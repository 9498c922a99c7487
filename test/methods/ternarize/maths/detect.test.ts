import fc from 'fast-check';
import type { Granularity } from '../../../../src/methods/ternarize/maths/codes.js';
import { detectTernary } from '../../../../src/methods/ternarize/maths/detect.js';
import {
  makeQuantizer,
  type QuantizerName,
} from '../../../../src/methods/ternarize/maths/quantizers.js';
import { fitRows } from '../../../../src/methods/ternarize/maths/rows.js';
import { codesFor, decoded, layerOf, randomLayer } from './support.js';

const granularities = fc.oneof(
  fc.constantFrom<Granularity>('tensor', 'channel'),
  fc.record({ group: fc.constantFrom(32, 64, 128) }),
);

test('ternary weights are found again, bit for bit', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 8, max: 300 }),
      granularities,
      fc.constantFrom<QuantizerName>('fit', 'absmean', 'twn-0.75', 'sherry'),
      fc.double({ min: -25, max: 30, noNaN: true }),
      (rows, cols, granularity, name, exponent) => {
        const source = randomLayer(rows, cols, rows * cols);
        const layer = { ...source, w: source.w.map((x) => x * 10 ** exponent) };
        const codes = codesFor(layer, granularity);
        fitRows(layer, codes, makeQuantizer(name));
        const ternary = { ...layer, w: Float32Array.from(decoded(codes)) };
        const found = detectTernary(ternary);
        expect(found && Float32Array.from(decoded(found), (x) => x + 0)).toEqual(
          ternary.w.map((x) => x + 0),
        );
      },
    ),
  );
});

test('the coarsest granularity that fits is taken', () => {
  const find = (values: number[], rows = 2) => {
    const found = detectTernary(layerOf(rows, values));
    return found && { shared: found.shared, group: found.group, scales: [...found.scales] };
  };
  expect(find([1, -1, 0, 1])).toEqual({ shared: true, group: 2, scales: [1, 1] });
  expect(find([1, -1, 0, 3])).toEqual({ shared: false, group: 2, scales: [1, 3] });
  expect(find([0, 0, 0, 0])).toEqual({ shared: true, group: 2, scales: [0, 0] });
  const grouped = [...new Array(32).fill(2), ...new Array(10).fill(-3)];
  expect(find(grouped, 1)).toEqual({ shared: false, group: 32, scales: [2, 3] });
  expect(find([1, 2, 1, 2])).toBeUndefined();
  expect(detectTernary(layerOf(1, [1, 1, 2, 2]), ['tensor', { group: 2 }])?.scales).toEqual(
    Float32Array.of(1, 2),
  );
});

test('a single bit of difference, NaN or infinity is not ternary; -0 is 0', () => {
  const layer = layerOf(1, [0.1, -0.1, 0, 0.1]);
  expect(detectTernary(layer)).toBeDefined();
  new Int32Array(layer.w.buffer)[3]++;
  expect(detectTernary(layer)).toBeUndefined();
  for (const bad of [Number.NaN, Infinity])
    expect(detectTernary(layerOf(1, [0, bad]))).toBeUndefined();
  expect(detectTernary(layerOf(1, [-0, 1, -1]))?.codes).toEqual(Int8Array.of(0, 1, -1));
});

test('weights of any other kind are not', () => {
  expect(detectTernary(randomLayer(4, 130, 1))).toBeUndefined();
  const fourLevel = layerOf(1, [-2, -1, 0, 1]);
  expect(detectTernary(fourLevel)).toBeUndefined();
});

test('a layer without weights has no groups', () => {
  expect(detectTernary(layerOf(1, []))?.codes.length).toBe(0);
});
