import fc from 'fast-check';
import { wassersteinDistance } from '../../../src/evaluate/forgetting/wasserstein.js';

const sample = fc
  .array(fc.integer({ min: -20, max: 20 }), { minLength: 1, maxLength: 15 })
  .map((values) => Float64Array.from(values));

/** ∫|F_a - F_b| from one whole number to the next. */
function byDistributions(a: Float64Array, b: Float64Array): number {
  const upTo = (values: Float64Array, x: number) =>
    values.filter((value) => value <= x).length / values.length;
  let area = 0;
  for (let x = -20; x < 20; x++) area += Math.abs(upTo(a, x) - upTo(b, x));
  return area;
}

test('known values', () => {
  expect(wassersteinDistance(Float64Array.of(1, 2, 4), Float64Array.of(0, 2.5, 3, 5))).toBeCloseTo(
    0.958333,
    6,
  );
  expect(wassersteinDistance(Float32Array.of(4, 1, 2), Float32Array.of(5, 3, 1))).toBeCloseTo(
    2 / 3,
    12,
  );
});

test('is the area between the distribution functions', () => {
  fc.assert(
    fc.property(sample, sample, (a, b) => {
      expect(wassersteinDistance(a, b)).toBeCloseTo(byDistributions(a, b), 9);
    }),
  );
});

test('is symmetric, and 0 for a sample and its repetition', () => {
  fc.assert(
    fc.property(sample, sample, (a, b) => {
      expect(wassersteinDistance(a, b)).toBeCloseTo(wassersteinDistance(b, a), 12);
      expect(wassersteinDistance(a, Float64Array.from([...a, ...a]))).toBe(0);
    }),
  );
});

test('moves with a shift, and leaves its inputs as they were', () => {
  fc.assert(
    fc.property(sample, fc.integer({ min: -9, max: 9 }), (a, shift) => {
      const before = a.slice();
      const moved = a.map((value) => value + shift);
      expect(wassersteinDistance(a, moved)).toBe(Math.abs(shift));
      expect(a).toEqual(before);
    }),
  );
});

test('NaN is not hidden, and an empty sample is a bug', () => {
  expect(wassersteinDistance(Float64Array.of(1, Number.NaN), Float64Array.of(1))).toBeNaN();
  expect(() => wassersteinDistance(new Float64Array(), Float64Array.of(1))).toThrow('empty');
});
