import fc from 'fast-check';
import {
  affine,
  clamp,
  compose,
  leaky,
  momentsOf,
} from '../../../../src/methods/compress/statistics/elementwise.js';
import {
  meanCorrelation,
  reshapedLayout,
} from '../../../../src/methods/compress/statistics/layout.js';
import { rebased, selectChannels } from '../../../../src/methods/compress/statistics/signals.js';
import { normal } from './support.js';

describe('functions of elements', () => {
  const number = fc.double({ min: -3, max: 3, noNaN: true });

  test('pieces composed with affine functions are what they are element by element', () => {
    fc.assert(
      fc.property(number, number, number, number, (scale, shift, bound, u) => {
        const line = affine(scale, shift);
        for (const f of [leaky(0.1), clamp(bound, bound + 1)]) {
          expect(compose(f, line).apply(u)).toBeCloseTo(f.apply(scale * u + shift), 9);
          expect(compose(line, f).apply(u)).toBeCloseTo(scale * f.apply(u) + shift, 9);
          expect(compose(line, f).pieces).toBeDefined();
        }
      }),
    );
  });

  test('moments of pieces are near those of the same function without them', () => {
    const f = compose(clamp(-0.5, 1), affine(-0.8, 0.2));
    const before = {
      mean: Float64Array.of(0.3, -0.2),
      covariance: Float64Array.of(1, 0.6, 0.6, 2),
    };
    const exact = momentsOf(f).moments(before);
    const series = momentsOf({ apply: f.apply }).moments(before);
    exact.covariance.forEach((value, k) => {
      expect(series.covariance[k]).toBeCloseTo(value, 2);
    });
    exact.mean.forEach((value, k) => {
      expect(series.mean[k]).toBeCloseTo(value, 2);
    });
  });
});

test('the mean correlation of positions is that over all pairs', () => {
  const sizes = [3, 4];
  let sum = 0;
  for (let a = 0; a < 12; a++) {
    for (let b = 0; b < 12; b++) {
      sum += 0.7 ** Math.hypot(Math.floor(a / 4) - Math.floor(b / 4), (a % 4) - (b % 4));
    }
  }
  expect(meanCorrelation(sizes, 0.7)).toBeCloseTo(sum / 144, 12);
  expect(meanCorrelation(sizes, 0)).toBeCloseTo(1 / 12, 12);
});

describe('channels in another shape', () => {
  test.each([
    [
      'flattened',
      [1, 8, 7, 7],
      1,
      [1, 392],
      { axis: 1, folded: { sizes: [7, 7], channelsFirst: true } },
    ],
    [
      'flattened from channels last',
      [1, 7, 7, 8],
      3,
      [1, 392],
      { axis: 1, folded: { sizes: [7, 7], channelsFirst: false } },
    ],
    ['positions in a row', [1, 8, 7, 5], 1, [1, 8, 35], { axis: 1, folded: undefined }],
    ['without axes of one', [1, 8, 1, 1], 1, [1, 8], { axis: 1, folded: undefined }],
    ['with axes of one', [2, 8], 1, [2, 8, 1, 1], { axis: 1, folded: undefined }],
    ['tokens in a row', [2, 5, 8], 2, [10, 8], { axis: 1, folded: undefined }],
    ['one channel', [1, 1, 4, 4], 1, [1, 1, 16], { axis: 1, folded: undefined }],
  ])('%s', (_, dims, axis, after, want) => {
    expect(reshapedLayout({ dims, axis }, after)).toEqual({ dims: after, ...want });
  });

  test('channels taken apart are lost', () => {
    expect(reshapedLayout({ dims: [1, 8, 4, 4], axis: 1 }, [1, 2, 4, 4, 4])).toBeUndefined();
    expect(reshapedLayout({ dims: [1, 8, 4, 4], axis: 1 }, [1, 4, 32])).toBeUndefined();
  });
});

/** Moments of samples [count, n]. */
function moments(rows: number[][], start: number, end: number) {
  const n = end - start;
  const mean = new Float64Array(n);
  for (const row of rows) for (let i = 0; i < n; i++) mean[i] += row[start + i] / rows.length;
  return { mean, n };
}

/** Covariance of columns [a, b) with columns [c, d). */
function covariance(rows: number[][], [a, b]: number[], [c, d]: number[]) {
  const [left, right] = [moments(rows, a, b), moments(rows, c, d)];
  const out = new Float64Array(left.n * right.n);
  for (const row of rows) {
    for (let i = 0; i < left.n; i++) {
      for (let j = 0; j < right.n; j++) {
        out[i * right.n + j] +=
          ((row[a + i] - left.mean[i]) * (row[c + j] - right.mean[j])) / rows.length;
      }
    }
  }
  return out;
}

test('a signal with measured moments keeps what the compressed network makes of the original', () => {
  // Columns: y (3), and y~ (2) = B·y + constant + noise that y does not know of.
  const z = normal(4000 * 5, 3);
  const rows = Array.from({ length: 4000 }, (_, k) => {
    const [a, b, c, d, e] = z.subarray(5 * k, 5 * k + 5);
    const y = [a, a + b, c - b];
    return [...y, 2 * y[0] - y[2] + 1 + 0.3 * d, y[1] + 0.5 * e];
  });
  const scaled = rows.map(([p, q, r, s, t]) => {
    const noise = [s - (2 * p - r + 1), t - q];
    const y = [3 * p + 1, q - 2 * r, r];
    return [...y, 2 * y[0] - y[2] + 1 + noise[0], y[1] + noise[1]];
  });
  const signal = (all: number[][]) => ({
    original: { mean: moments(all, 0, 3).mean, covariance: covariance(all, [0, 3], [0, 3]) },
    compressed: {
      mean: moments(all, 3, 5).mean,
      covariance: covariance(all, [3, 5], [3, 5]),
      cross: covariance(all, [0, 3], [3, 5]),
    },
  });
  const want = signal(scaled);
  const got = rebased(signal(rows), want.original);
  expect(got.original).toBe(want.original);
  for (const part of ['mean', 'covariance', 'cross'] as const) {
    got.compressed![part].forEach((value, k) => {
      expect(Math.abs(value - want.compressed[part][k])).toBeLessThan(0.2);
    });
  }
});

test('selected channels keep the places that are left of them', () => {
  const original = {
    mean: Float64Array.of(0, 1, 2, 3),
    covariance: Float64Array.from({ length: 16 }, (_, k) => 10 * Math.floor(k / 4) + (k % 4)),
  };
  const compressed = {
    mean: Float64Array.of(10, 30),
    covariance: Float64Array.of(1, 2, 3, 4),
    cross: Float64Array.from({ length: 8 }, (_, k) => k),
  };
  const kept = Uint32Array.of(1, 3);
  const { signal, kept: left } = selectChannels(
    { signal: { original, compressed }, kept },
    [3, 0, 1],
  );
  expect(Array.from(left!)).toEqual([0, 2]);
  expect(Array.from(signal.original.mean)).toEqual([3, 0, 1]);
  expect(Array.from(signal.compressed!.mean)).toEqual([30, 10]);
  expect(Array.from(signal.compressed!.covariance)).toEqual([4, 3, 2, 1]);
  expect(Array.from(signal.compressed!.cross)).toEqual([7, 6, 1, 0, 3, 2]);
});
