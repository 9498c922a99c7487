import fc from 'fast-check';
import { gptq } from '../../../../src/methods/compress/maths/gptq.js';
import {
  dequantize,
  leastSquaresScales,
  maxScales,
  midRise,
  quantize,
} from '../../../../src/methods/compress/maths/quantize.js';
import { roundHalfEven } from '../../../../src/methods/compress/maths/rounding.js';
import { distance, naiveInverse, randomArray, randomCovariance } from './numbers.js';

const squaredError = (a: Float64Array, b: Float64Array) =>
  a.reduce((sum, x, k) => sum + (x - b[k]) ** 2, 0);

test('halves are rounded to even', () => {
  const halves = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999999999999994, 2 ** 51 - 0.5];
  expect(halves.map((x) => roundHalfEven(x) + 0)).toEqual([0, 2, 2, 0, -2, -2, 0, 2 ** 51]);
  const { codes } = quantize(Float64Array.of(0.5, 1.5, -2.5, 9), Float64Array.of(1), 4);
  expect([...codes]).toEqual([0, 2, -2, 7]);
});

test('rounding is off by half a step at most, searched scales by no more in squares', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e6 }), fc.integer({ min: 2, max: 16 }), (seed, bits) => {
      const w = randomArray(6 * 10, seed);
      const scales = maxScales(w, 6, bits);
      const rounded = dequantize(quantize(w, scales, bits));
      w.forEach((x, k) => {
        const step = scales[Math.floor(k / 10)];
        expect(Math.abs(x - rounded[k])).toBeLessThanOrEqual(step * (0.5 + 1e-9));
      });
      const searched = quantize(w, leastSquaresScales(w, 6, bits), bits);
      const error = squaredError(w, dequantize(searched));
      expect(error).toBeLessThanOrEqual(squaredError(w, rounded) * (1 + 1e-9));
    }),
    { numRuns: 30 },
  );
});

test('zeros stay zeros, and mid-rise keeps the largest', () => {
  const zeros = new Float64Array(6);
  expect(maxScales(zeros, 2, 4)).toEqual(Float64Array.of(1, 1));
  expect(dequantize(quantize(zeros, leastSquaresScales(zeros, 2, 4), 4))).toEqual(zeros);
  expect(midRise(zeros, 4)).toEqual(zeros);
  expect(distance(midRise(Float64Array.of(-3, 0.9, 3), 2), [-3, 1, 3])).toBeLessThan(1e-14);
});

describe('gptq', () => {
  const [rows, channels, taps] = [2, 35, 2];
  const w = randomArray(rows * channels * taps, 1);
  const identity = (n: number) =>
    Float64Array.from({ length: n * n }, (_, k) => (k % (n + 1) === 0 ? 1 : 0));

  test('without correlations rounds to nearest', () => {
    const hessian = { channels: identity(channels), taps: identity(taps) };
    const scales = maxScales(w, rows, 3);
    expect(gptq(w, hessian, { bits: 3, scales })).toEqual(quantize(w, scales, 3));
  });

  test('is the usual procedure on the whole Hessian', () => {
    const c = randomCovariance(channels, 2);
    const t = Float64Array.from({ length: 4 }, (_, k) => (k % 3 === 0 ? 1 : 0.6));
    const scales = maxScales(w, rows, 3);
    const damping = 0.01;
    const got = gptq(w, { channels: c, taps: t }, { bits: 3, scales, damping })!;

    const trace = identity(channels).reduce((sum, x, k) => sum + x * c[k], 0);
    const order = Array.from({ length: channels }, (_, j) => j).sort(
      (a, b) => c[b * (channels + 1)] - c[a * (channels + 1)],
    );
    const columns = order.flatMap((j) => [0, 1].map((q) => j * taps + q));
    const hessian = (a: number, b: number) => {
      const [i, j] = [Math.floor(a / taps), Math.floor(b / taps)];
      const damped = c[i * channels + j] + (i === j ? (damping * trace) / channels : 0);
      return damped * t[(a % taps) * taps + (b % taps)];
    };
    const current = w.slice();
    const want = new Int16Array(w.length);
    columns.forEach((column, k) => {
      // The inverse over the columns that are left tells how they make up for this one.
      const left = columns.slice(k);
      const inverse = naiveInverse(
        Float64Array.from(left.flatMap((a) => left.map((b) => hessian(a, b)))),
      );
      for (let row = 0; row < rows; row++) {
        const at = row * channels * taps;
        const value = current[at + column];
        want[at + column] = quantize(
          Float64Array.of(value),
          scales.subarray(row, row + 1),
          3,
        ).codes[0];
        const error = (value - scales[row] * want[at + column]) / inverse[0];
        left.forEach((b, m) => {
          current[at + b] -= error * inverse[m];
        });
      }
    });
    expect(got.codes).toEqual(want);
  });

  test('an indefinite Hessian has no answer', () => {
    const hessian = { channels: identity(channels), taps: Float64Array.of(1, 2, 2, 1) };
    const options = { bits: 4, scales: Float64Array.of(1) };
    expect(gptq(randomArray(2 * channels * 2, 3), hessian, options)).toBeUndefined();
  });
});
