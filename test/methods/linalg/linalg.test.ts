import {
  choleskyInPlace,
  conditionEstimate,
  inverse,
  solveInPlace,
  upperCholeskyInPlace,
} from '../../../src/methods/linalg/cholesky.js';
import {
  identity,
  symmetricProduct,
  timesTransposed,
  transpose,
} from '../../../src/methods/linalg/matrix.js';
import { normals } from '../sparsify/random.js';

const random = (length: number, seed: number) => {
  const next = normals(seed);
  return Float64Array.from({ length }, next);
};

function naiveProduct(a: Float64Array, b: Float64Array, rows: number, cols: number, depth: number) {
  return Float64Array.from({ length: rows * cols }, (_, k) => {
    let sum = 0;
    for (let t = 0; t < depth; t++) {
      sum += a[Math.floor(k / cols) * depth + t] * b[(k % cols) * depth + t];
    }
    return sum;
  });
}

const distance = (a: Float64Array, b: Float64Array) =>
  a.reduce((most, x, k) => Math.max(most, Math.abs(x - b[k])), 0);

/** A positive definite matrix [n, n]. */
function definite(n: number, seed: number): Float64Array {
  const a = symmetricProduct(random(n * (n + 3), seed), random(n * (n + 3), seed), n, n + 3);
  for (let i = 0; i < n; i++) a[i * (n + 1)] += n / 4;
  return a;
}

test.each([
  [1, 1, 1],
  [5, 7, 3],
  [66, 50, 300],
])('A·Bᵀ of %i x %i, depth %i', (rows, cols, depth) => {
  const a = random(rows * depth, 1);
  const b = random(cols * depth, 2);
  const want = naiveProduct(a, b, rows, cols, depth);
  expect(distance(timesTransposed(a, b, rows, cols, depth), want)).toBeLessThan(1e-11);
  const gram = naiveProduct(a, a, rows, rows, depth);
  expect(distance(symmetricProduct(a, a, rows, depth), gram)).toBeLessThan(1e-11);
});

test.each([1, 2, 5, 48, 49, 130, 310])('factors and solves %i unknowns', (n) => {
  const a = definite(n, n);
  const l = a.slice();
  expect(choleskyInPlace(l, n)).toBe(true);
  const x = random(7 * n, 3);
  const b = timesTransposed(x, a, 7, n, n);
  solveInPlace(l, n, b, 7);
  expect(distance(b, x)).toBeLessThan(1e-9);
  const inverted = inverse(l, n);
  expect(distance(timesTransposed(inverted, a, n, n, n), identity(n))).toBeLessThan(1e-9);
  expect(inverted).toEqual(transpose(inverted, n, n));
  expect(conditionEstimate(l, n)).toBeGreaterThanOrEqual(1);

  const r = a.slice();
  expect(upperCholeskyInPlace(r, n)).toBe(true);
  const upper = r.map((value, k) => (k % n >= Math.floor(k / n) ? value : 0));
  expect(distance(timesTransposed(upper, upper, n, n, n), a)).toBeLessThan(1e-9 * n);
});

test('an indefinite matrix has no factor', () => {
  expect(choleskyInPlace(Float64Array.of(1, 2, 2, 1), 2)).toBe(false);
  expect(upperCholeskyInPlace(Float64Array.of(1, Number.NaN, Number.NaN, 1), 2)).toBe(false);
});
