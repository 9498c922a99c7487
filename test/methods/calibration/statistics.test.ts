import fc from 'fast-check';
import {
  countNonFinite,
  countNonFiniteStatistics,
  reduceActivation,
  StatisticsAccumulator,
} from '../../../src/methods/calibration/statistics.js';
import { factorHessian, inverseFactorDiagonal } from '../../../src/methods/sparsify/cholesky.js';
import { normals } from '../sparsify/random.js';

const gram = { gram: true };

/** Random samples [tokens, cols], of which some have channels with a large mean. */
function randomSamples(seed: number, tokens: number[], cols: number): Float32Array[] {
  const normal = normals(seed);
  const mean = Array.from({ length: cols }, () => 3 * normal());
  return tokens.map((count) =>
    Float32Array.from({ length: count * cols }, (_, i) => mean[i % cols] + normal()),
  );
}

function accumulate(samples: Float32Array[], cols: number): StatisticsAccumulator {
  const accumulator = new StatisticsAccumulator(cols, gram);
  for (const x of samples) {
    accumulator.add(reduceActivation(x, x.length / cols, cols, gram));
  }
  return accumulator;
}

test('statistics of two samples, by hand', () => {
  const accumulator = new StatisticsAccumulator(2, gram);
  accumulator.add(reduceActivation(Float32Array.of(1, 0, 3, 0), 2, 2, gram));
  accumulator.add(reduceActivation(Float32Array.of(5, 2), 1, 2, gram));
  expect(accumulator.finish()).toEqual({
    samples: 2,
    tokens: 3,
    scaler: Float32Array.of((1 + 9 + 25) / 2, 4 / 2),
    sum: Float32Array.of(9 / 2, 2 / 2),
    // 1 within the first sample of two tokens, 0 in the second; what is between them does not count.
    variance: Float32Array.of(2 / 3, 0),
    hessian: Float32Array.of(1 + 9 + 25, 10, 10, 4),
  });
});

test('variance survives a mean that is far larger', () => {
  const x = Float32Array.from({ length: 1000 }, (_, i) => 20000 + (i % 2));
  const accumulator = new StatisticsAccumulator(1, { gram: false });
  accumulator.add(reduceActivation(x, 1000, 1, { gram: false }));
  expect(accumulator.finish().variance[0]).toBe(0.25);
});

test('merging is concatenating the samples', () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 2, maxLength: 6 }),
      fc.nat(),
      (seed, tokens, cut) => {
        const samples = randomSamples(seed, tokens, 5);
        const at = 1 + (cut % (samples.length - 1));
        const merged = accumulate(samples.slice(0, at), 5);
        merged.merge(accumulate(samples.slice(at), 5));
        const actual = merged.finish();
        const expected = accumulate(samples, 5).finish();
        expect([actual.samples, actual.tokens]).toEqual([expected.samples, expected.tokens]);
        for (const field of ['scaler', 'sum', 'variance', 'hessian'] as const) {
          const values = expected[field] ?? new Float32Array();
          const scale = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
          actual[field]?.forEach((value, i) => {
            expect(Math.abs(value - values[i])).toBeLessThanOrEqual(1e-6 * scale);
          });
        }
      },
    ),
    { numRuns: 50 },
  );
});

test('a Gram matrix accumulated in float32 over 128 samples is as good as one in float64', () => {
  const cols = 48;
  const normal = normals(7);
  // Channels of very different scale, two of them nearly the same, and fewer tokens than channels.
  const scale = Array.from({ length: cols }, () => Math.exp(2 * normal()));
  const exact = new Float64Array(cols * cols);
  const accumulator = new StatisticsAccumulator(cols, gram);
  for (let s = 0; s < 128; s++) {
    const x = Float32Array.from({ length: 16 * cols }, (_, i) => scale[i % cols] * normal());
    for (let t = 0; t < 16; t++) x[t * cols + 1] = 100 * x[t * cols] + 0.01 * normal();
    const call = reduceActivation(x, 16, cols, gram);
    accumulator.add(call);
    call.gram?.forEach((value, i) => {
      exact[i] += (2 / 128) * value;
    });
  }
  const hessian = accumulator.finish().hessian ?? new Float32Array();
  const reference = Float32Array.from(exact);
  const diagonal = (h: Float32Array) => {
    const factor = factorHessian(h, cols);
    if (!factor) throw new Error('not positive definite');
    expect(factor.damping).toBe(0.01);
    return inverseFactorDiagonal(factor);
  };
  const expected = diagonal(reference);
  diagonal(hessian).forEach((u, j) => {
    expect(Math.abs(u / expected[j] - 1)).toBeLessThan(1e-4);
  });
});

test('statistics of nothing are an error', () => {
  const empty = new StatisticsAccumulator(3, { gram: false });
  expect(() => empty.finish()).toThrow(expect.objectContaining({ exitCode: 6 }));
});

test('a call of another width, or without the Gram matrix, is refused', () => {
  const accumulator = new StatisticsAccumulator(2, gram);
  expect(() => accumulator.add(reduceActivation(new Float32Array(3), 1, 3, gram))).toThrow('3');
  expect(() =>
    accumulator.add(reduceActivation(new Float32Array(2), 1, 2, { gram: false })),
  ).toThrow('Gram');
  expect(() => reduceActivation(new Float32Array(3), 2, 2, gram)).toThrow('[2, 2]');
});

test('values that are not finite are counted', () => {
  expect(countNonFinite(Float32Array.of(1, Number.NaN, -Infinity, 0, Infinity))).toBe(3);
  expect(countNonFinite(Float32Array.of(0, -3e38))).toBe(0);
  const statistics = {
    samples: 1,
    tokens: 1,
    scaler: Float32Array.of(1, Infinity),
    sum: Float32Array.of(1, 1),
    variance: Float32Array.of(Number.NaN, 0),
  };
  expect(countNonFiniteStatistics(statistics)).toBe(2);
  const hessian = Float32Array.of(1, Number.NaN, Number.NaN, 1);
  expect(countNonFiniteStatistics({ ...statistics, hessian })).toBe(4);
});
