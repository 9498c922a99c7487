import fc from 'fast-check';
import type { ImportancePair } from '../../../src/methods/unlearn/ssd/dampen.js';
import {
  assdPercentage,
  ratioStatistics,
  selectedBy,
  suggestAlpha,
} from '../../../src/methods/unlearn/ssd/ratios.js';
import { casesWithImportances } from './golden-ssd.js';

/** `numpy.percentile` of the finite ratios, by sorting. */
function naivePercentile(ratios: readonly number[], percentage: number): number {
  const sorted = Float32Array.from(ratios.filter(Number.isFinite)).sort();
  const at = (percentage / 100) * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  const step = Math.fround(high - low);
  const share = at - Math.floor(at);
  return share < 0.5 ? low + step * share : high - step * (1 - share);
}

const ratiosOf = (pairs: readonly ImportancePair[]) =>
  pairs.flatMap(({ forget, full }) =>
    Array.from(forget, (f, i) => Math.abs(Math.fround(f / full[i]))),
  );

const importance = fc.oneof(
  { weight: 6, arbitrary: fc.double({ min: 0, max: 100, noNaN: true }) },
  { weight: 3, arbitrary: fc.constantFrom(0, -0, 1, 2, 1e-44, 3e38) },
  { weight: 1, arbitrary: fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY) },
);
const tensor = fc
  .array(fc.tuple(importance, importance), { maxLength: 40 })
  .map((rows) => ({ forget: rows.map(([f]) => f), full: rows.map(([, d]) => d) }));
const pairs = fc.tuple(fc.boolean(), fc.array(tensor, { maxLength: 4 })).map(([wide, tensors]) => {
  const Values = wide ? Float64Array : Float32Array;
  return tensors.map(({ forget, full }) => ({
    forget: Values.from(forget),
    full: Values.from(full),
  }));
});

test('percentiles, maximum and counts are those of sorted ratios', async () => {
  await fc.assert(
    fc.asyncProperty(
      pairs,
      fc.array(fc.double({ min: 0, max: 100, noNaN: true })),
      async (tensors, percentages) => {
        const found = await ratioStatistics(() => tensors, percentages);
        const ratios = ratiosOf(tensors);
        const finite = ratios.filter(Number.isFinite);
        expect(found.finite).toBe(finite.length);
        expect(found.infinite).toBe(ratios.filter((r) => r === Number.POSITIVE_INFINITY).length);
        expect(found.undefined).toBe(ratios.filter(Number.isNaN).length);
        const same = (a: number, b: number) => a === b || (Number.isNaN(a) && Number.isNaN(b));
        expect(same(found.max, finite.length > 0 ? Math.max(...finite) : Number.NaN)).toBe(true);
        for (const [i, percentage] of percentages.entries())
          expect(same(found.percentiles[i], naivePercentile(ratios, percentage))).toBe(true);
      },
    ),
    { numRuns: Number(process.env.RUNS ?? 60) },
  );
});

test('a percentile between two ratios of different buckets', async () => {
  const pair = { forget: Float32Array.of(100, 1, 2, 4), full: Float32Array.of(1, 1, 1, 1) };
  const { percentiles, max } = await ratioStatistics(() => [pair], [0, 50, 75, 100]);
  expect(percentiles).toEqual([1, 3, 28, 100]);
  expect(max).toBe(100);
});

describe('the authors’ code', () => {
  test.each(casesWithImportances.filter(({ assd }) => assd))('ASSD: $id', async (record) => {
    const { alpha, percentile } = record.assd!;
    const q = assdPercentage(400, 4000);
    expect(q).toBe(percentile);
    const { percentiles } = await ratioStatistics(() => record.pairs, [q]);
    expect(percentiles[0]).toBe(alpha);
  });

  test.each(casesWithImportances)(
    'counts: $id',
    async ({ pairs: tensors, dampened, max_ratio }) => {
      for (const { alpha, n_selected } of dampened)
        expect(await selectedBy(() => tensors, alpha)).toBe(n_selected);
      if (max_ratio === undefined) return;
      const { max } = await ratioStatistics(() => tensors);
      expect(max).toBeCloseTo(max_ratio, 4);
    },
  );
});

describe('a suggestion for α', () => {
  /** Without subnormal numbers, whose products are too coarse to compare. */
  const normal = (value: number) => (value > 0 && value < 1e-30 ? 1 : value);
  const normalPairs = pairs.map((tensors) =>
    tensors.map(({ forget, full }) => ({ forget: forget.map(normal), full: full.map(normal) })),
  );

  test('selects something wherever a ratio is above 0', async () => {
    await fc.assert(
      fc.asyncProperty(
        normalPairs,
        fc.double({ min: 0, max: 100, noNaN: true }),
        async (tensors, q) => {
          const statistics = await ratioStatistics(() => tensors, [q]);
          const alpha = suggestAlpha(statistics, 0);
          if (alpha === undefined) expect(statistics.max > 0).toBe(false);
          else expect(await selectedBy(() => tensors, alpha)).toBeGreaterThan(0);
        },
      ),
      { numRuns: Number(process.env.RUNS ?? 60) },
    );
  });

  test('is a number where the percentile is smaller than a float32 can be', async () => {
    const tensors = [{ forget: Float64Array.of(1, 1, 0), full: Float64Array.of(3e38, 1, 2) }];
    const statistics = await ratioStatistics(() => tensors, [3.7e-284]);
    expect(suggestAlpha(statistics, 0)).toBe(0.99);
  });

  test('has two digits', async () => {
    const { pairs: tensors } = casesWithImportances.find(({ id }) => id === 'cnn_class3_b1')!;
    const statistics = await ratioStatistics(() => tensors, [assdPercentage(400, 4000)]);
    expect(await selectedBy(() => tensors, 10)).toBe(0);
    const alpha = suggestAlpha(statistics, 0)!;
    expect(`${alpha}`).toMatch(/^\d\.\d$/);
    expect(alpha).toBeLessThanOrEqual(statistics.percentiles[0]);
  });
});
