import fc from 'fast-check';
import type { TensorData } from '../../src/data/index.js';
import { Fidelity } from '../../src/evaluate/fidelity.js';

const float = (dims: number[], values: ArrayLike<number>): TensorData => ({
  dtype: 'float32',
  dims,
  data: Float32Array.from(values),
});

const softmax = (row: number[]) => {
  const exps = row.map((v) => Math.exp(v - Math.max(...row)));
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((e) => e / sum);
};

/** Fidelity of `b` to `a`, each a list of batches [rows, classes]. */
function measure(a: number[][][], b: number[][][], classes = true) {
  const fidelity = new Fidelity(['y'], classes);
  const tensor = (rows: number[][]) => ({ y: float([rows.length, rows[0].length], rows.flat()) });
  for (const [i, rows] of a.entries()) fidelity.add(tensor(rows), tensor(b[i]));
  return fidelity.result();
}

const scores = fc.integer({ min: -40, max: 40 }).map((v) => v / 8);
const pairs = fc
  .tuple(fc.integer({ min: 2, max: 6 }), fc.integer({ min: 1, max: 8 }))
  .chain(([classes, rows]) => {
    const matrix = fc.array(fc.array(scores, { minLength: classes, maxLength: classes }), {
      minLength: rows,
      maxLength: rows,
    });
    return fc.tuple(matrix, matrix);
  });

test('property: cosine, relative error, agreement and KL are what the definitions say', () =>
  fc.assert(
    fc.property(pairs, ([a, b]) => {
      const [x, y] = [a.flat(), b.flat()];
      const dot = x.reduce((n, v, i) => n + v * y[i], 0);
      const norm = (v: number[]) => Math.hypot(...v);
      fc.pre(norm(x) > 0 && norm(y) > 0);
      const isDistribution = (row: number[]) =>
        row.every((v) => v >= 0) && Math.abs(row.reduce((n, v) => n + v, 0) - 1) < 1e-3;
      fc.pre(![...a, ...b].some(isDistribution));
      const { cosine, relativeError, agreement, kl } = measure([a], [b]);
      expect(cosine).toBeCloseTo(dot / norm(x) / norm(y), 6);
      expect(relativeError).toBeCloseTo(norm(x.map((v, i) => v - y[i])) / norm(x), 6);
      const best = (row: number[]) => row.indexOf(Math.max(...row));
      expect(agreement).toBeCloseTo(
        a.filter((row, i) => best(row) === best(b[i])).length / a.length,
        12,
      );
      const divergence = a.reduce((n, row, i) => {
        const [p, q] = [softmax(row), softmax(b[i])];
        return n + p.reduce((m, v, j) => m + v * Math.log(v / q[j]), 0);
      }, 0);
      expect(kl).toBeCloseTo(divergence / a.length, 6);
    }),
  ));

test('property: batches add up', () =>
  fc.assert(
    fc.property(pairs, ([a, b]) => {
      const whole = measure([a], [b]);
      const parts = measure(
        a.map((row) => [row]),
        b.map((row) => [row]),
      );
      for (const [name, value] of Object.entries(whole)) expect(parts[name]).toBeCloseTo(value, 9);
    }),
  ));

test('a model is wholly faithful to itself', () => {
  const rows = [
    [1, -2, 3],
    [0, 0, 0],
  ];
  expect(measure([rows], [rows])).toEqual({ agreement: 1, kl: 0, cosine: 1, relativeError: 0 });
});

test('where outputs are no classes there is no agreement and no KL', () => {
  expect(Object.keys(measure([[[1, 2]]], [[[1, 2]]], false))).toEqual(['cosine', 'relativeError']);
  expect(Object.keys(measure([[[1]]], [[[1]]]))).toEqual(['cosine', 'relativeError']);
});

test('probabilities are compared as such', () => {
  const { kl } = measure([[[0.5, 0.5]]], [[[0.25, 0.75]]]);
  expect(kl).toBeCloseTo(0.5 * Math.log(2) + 0.5 * Math.log(0.5 / 0.75), 6);
});

test('classes that both rule out by -Infinity do not count; one that only the other rules out does', () => {
  const out = Number.NEGATIVE_INFINITY;
  const { agreement, kl } = measure([[[out, 1, 2]]], [[[out, 1, 2]]]);
  expect([agreement, kl]).toEqual([1, 0]);
  expect(measure([[[0, 1, 2]]], [[[out, 1, 2]]]).kl).toBe(Number.POSITIVE_INFINITY);
});

test('all zeros', () => {
  expect(measure([[[0, 0]]], [[[0, 0]]], false)).toEqual({ cosine: 1, relativeError: 0 });
  expect(measure([[[0, 0]]], [[[1, 0]]], false)).toEqual({
    cosine: 0,
    relativeError: Number.POSITIVE_INFINITY,
  });
});

test('NaN shows in every number, and agrees with nothing', () => {
  const { agreement, kl, cosine, relativeError } = measure(
    [[[1, 0]]],
    [[[Number.NaN, Number.NaN]]],
  );
  expect([agreement, kl, cosine, relativeError]).toEqual([0, Number.NaN, Number.NaN, Number.NaN]);
});

test('all floating-point outputs count for the cosine, the first for the classes', () => {
  const fidelity = new Fidelity(['boxes', 'ids', 'scores'], true);
  const ids: TensorData = { dtype: 'int64', dims: [1], data: BigInt64Array.of(1n) };
  const one = { boxes: float([1, 2], [3, 0]), ids, scores: float([1, 1], [4]) };
  fidelity.add(one, {
    ...one,
    scores: float([1, 1], [0]),
    ids: { ...ids, data: BigInt64Array.of(2n) },
  });
  const { cosine, relativeError, agreement } = fidelity.result();
  expect(agreement).toBe(1);
  expect(cosine).toBeCloseTo(9 / 5 / 3, 12);
  expect(relativeError).toBeCloseTo(4 / 5, 12);
});

test('outputs of other lengths cannot be compared value by value', () => {
  const fidelity = new Fidelity(['boxes'], false);
  fidelity.add({ boxes: float([2, 2], [1, 2, 3, 4]) }, { boxes: float([1, 2], [1, 2]) });
  expect(fidelity.result()).toEqual({});
});

test('without floating-point outputs nothing is claimed', () => {
  const fidelity = new Fidelity(['ids'], true);
  const ids: TensorData = { dtype: 'int64', dims: [1], data: BigInt64Array.of(1n) };
  fidelity.add({ ids }, { ids });
  expect(fidelity.result()).toEqual({});
});
