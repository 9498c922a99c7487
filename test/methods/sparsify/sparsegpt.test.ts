import fc from 'fast-check';
import { factorHessian, type HessianFactor } from '../../../src/methods/sparsify/cholesky.js';
import type { Pattern } from '../../../src/methods/sparsify/pattern.js';
import { sparseGpt } from '../../../src/methods/sparsify/sparsegpt.js';
import { goldenCases } from './golden.js';
import { normals } from './random.js';

const { fround } = Math;

/** H = (2/samples)·xᵀx of random correlated inputs. */
function randomHessian(seed: number, cols: number, samples: number): Float32Array {
  const normal = normals(seed);
  const x = Array.from({ length: samples }, () => {
    const common = normal();
    return Float32Array.from({ length: cols }, (_, j) => common + (1 + (j % 3)) * normal());
  });
  return Float32Array.from({ length: cols * cols }, (_, i) => {
    const column = i % cols;
    const row = (i - column) / cols;
    return (2 / samples) * x.reduce((total, s) => total + s[row] * s[column], 0);
  });
}

function factorOf(hessian: Float32Array): HessianFactor {
  const factor = factorHessian(hessian, Math.sqrt(hessian.length));
  if (!factor) throw new Error('not positive definite');
  return factor;
}

/** U = R⁻¹ [cols, cols], by back substitution. */
function inverse({ r, cols }: HessianFactor): Float64Array {
  const u = new Float64Array(cols * cols);
  for (let column = 0; column < cols; column++) {
    for (let i = column; i >= 0; i--) {
      let sum = i === column ? 1 : 0;
      for (let k = i + 1; k <= column; k++) sum -= r[i * cols + k] * u[k * cols + column];
      u[i * cols + column] = sum / r[i * cols + i];
    }
  }
  return u;
}

describe('factorHessian', () => {
  test.each([1, 3, 47, 48, 49, 101, 300])('R·Rᵀ is the damped Hessian of %i channels', (cols) => {
    const hessian = randomHessian(cols, cols, 2 * cols);
    const { r } = factorOf(hessian);
    let trace = 0;
    for (let j = 0; j < cols; j++) trace += hessian[j * cols + j];
    let worst = 0;
    for (let i = 0; i < cols; i++) {
      for (let j = 0; j < cols; j++) {
        let product = 0;
        for (let k = Math.max(i, j); k < cols; k++) product += r[i * cols + k] * r[j * cols + k];
        const damped = hessian[i * cols + j] + (i === j ? (0.01 * trace) / cols : 0);
        worst = Math.max(worst, Math.abs(product - damped));
      }
    }
    expect(worst).toBeLessThan((1e-12 * trace) / cols);
  });

  test('R⁻¹ is the factor that the reference computes', () => {
    const golden = goldenCases.find(({ name }) => name === 's0_16x64');
    if (!golden) throw new Error('s0_16x64 is missing');
    const u = inverse(factorOf(golden.floats('H')));
    const expected = golden.floats('hinv_chol_upper');
    for (let i = 0; i < u.length; i++) {
      expect(Math.abs(u[i] - expected[i])).toBeLessThan(1e-6 + 1e-4 * Math.abs(expected[i]));
    }
  });

  test('fewer samples than channels are enough', () => {
    expect(factorOf(randomHessian(1, 100, 10)).damping).toBe(0.01);
  });

  test('a dead channel counts as one of unit variance', () => {
    const { r, dead } = factorOf(Float32Array.of(4, 0, 0, 0));
    expect([...dead]).toEqual([0, 1]);
    const damp = (0.01 * (4 + 1)) / 2;
    expect(r[0]).toBeCloseTo(Math.sqrt(4 + damp), 12);
    expect(r[3]).toBeCloseTo(Math.sqrt(1 + damp), 12);
  });

  test('damping grows until the matrix is positive definite, but not without end', () => {
    // Eigenvalues 1 ± b: a damping of b - 1 or more is needed.
    const matrix = (b: number) => factorHessian(Float32Array.of(1, b, b, 1), 2);
    expect(matrix(1.05)?.damping).toBeCloseTo(0.1);
    expect(matrix(1.5)?.damping).toBeCloseTo(1);
    expect(matrix(5)?.damping).toBeCloseTo(10);
    expect(matrix(20)).toBeUndefined();
  });

  test('values that are not finite fail', () => {
    expect(factorHessian(Float32Array.of(1, Number.NaN, Number.NaN, 1), 2)).toBeUndefined();
    expect(factorHessian(Float32Array.of(Infinity, 0, 0, 1), 2)).toBeUndefined();
  });
});

/** SparseGPT as published: rows of U are subtracted after each column, in blocks. */
function published(w: Float32Array, rows: number, factor: HessianFactor, pattern: Pattern) {
  const { cols, dead } = factor;
  const u = inverse(factor);
  const current = Float64Array.from(w);
  const mask = new Uint8Array(w.length).fill(1);
  const score = (i: number) => {
    const column = i % cols;
    const divisor = dead[column] ? Infinity : fround(u[column * cols + column]);
    return fround(fround(fround(current[i]) ** 2) / fround(divisor * divisor));
  };
  for (let column = 0; column < cols; column++) {
    if (pattern.kind === 'unstructured' && column % 128 === 0) {
      const width = Math.min(128, cols - column);
      const block = Array.from({ length: rows * width }, (_, i) => {
        const j = i % width;
        return ((i - j) / width) * cols + column + j;
      });
      const rank = Math.trunc(block.length * pattern.sparsity);
      const threshold = block.map(score).sort((a, b) => a - b)[rank];
      if (rank > 0) for (const i of block) mask[i] = score(i) > threshold ? 1 : 0;
    } else if (pattern.kind === 'nm' && column % pattern.m === 0) {
      for (let row = 0; row < rows; row++) {
        Array.from({ length: pattern.m }, (_, i) => row * cols + column + i)
          .sort((a, b) => score(a) - score(b) || a - b)
          .slice(0, pattern.n)
          .forEach((i) => {
            mask[i] = 0;
          });
      }
    }
    for (let row = 0; row < rows; row++) {
      const i = row * cols + column;
      const kept = mask[i] ? current[i] : 0;
      const error = (current[i] - kept) / u[column * cols + column];
      for (let j = column; j < cols; j++) current[row * cols + j] -= error * u[column * cols + j];
      current[i] = kept;
    }
  }
  return { mask, weights: current };
}

describe('sparseGpt', () => {
  const pattern: fc.Arbitrary<Pattern> = fc.oneof(
    fc
      .constantFrom(0, 0.3, 0.6, 0.95)
      .map((sparsity) => ({ kind: 'unstructured' as const, sparsity })),
    fc.constantFrom([2, 4], [1, 3], [10, 48]).map(([n, m]) => ({ kind: 'nm' as const, n, m })),
  );
  const layer = fc.record({
    seed: fc.integer(),
    rows: fc.integer({ min: 1, max: 9 }),
    // Divisible by each m; one to three blocks, the last one often short.
    cols: fc.constantFrom(48, 144, 288),
    deadChannels: fc.array(fc.nat({ max: 47 }), { maxLength: 5 }),
    pattern,
  });

  test('gives the masks and weights of the published formulation', () => {
    fc.assert(
      fc.property(layer, ({ seed, rows, cols, deadChannels, pattern: chosen }) => {
        const hessian = randomHessian(seed, cols, cols);
        for (const channel of deadChannels) {
          for (let j = 0; j < cols; j++)
            hessian[channel * cols + j] = hessian[j * cols + channel] = 0;
        }
        const factor = factorOf(hessian);
        const normal = normals(seed + 1);
        const w = Float32Array.from({ length: rows * cols }, normal);
        const actual = sparseGpt(w, rows, factor, chosen);
        const expected = published(w, rows, factor, chosen);
        expect(actual.mask).toEqual(expected.mask);
        for (let i = 0; i < w.length; i++) {
          expect(Math.abs(actual.weights[i] - expected.weights[i])).toBeLessThan(1e-5);
        }
      }),
      { numRuns: 20 },
    );
  });

  test('N:M groups have exactly n zeros and pruned weights are 0', () => {
    const factor = factorOf(randomHessian(3, 96, 96));
    const normal = normals(4);
    const w = Float32Array.from({ length: 5 * 96 }, normal);
    const { mask, weights } = sparseGpt(w, 5, factor, { kind: 'nm', n: 5, m: 8 });
    for (let from = 0; from < mask.length; from += 8) {
      expect(mask.subarray(from, from + 8).filter((keep) => keep === 0)).toHaveLength(5);
    }
    expect([...weights].map((x) => (x === 0 ? 0 : 1))).toEqual([...mask]);
  });

  test('without correlations the kept weights do not change', () => {
    const factor = factorOf(Float32Array.of(1, 0, 0, 0, 2, 0, 0, 0, 3));
    const w = Float32Array.of(1, -0.5, 0.1);
    const { mask, weights } = sparseGpt(w, 1, factor, { kind: 'nm', n: 1, m: 3 });
    expect([...mask]).toEqual([1, 1, 0]);
    expect([...weights]).toEqual([1, -0.5, 0]);
  });

  test('sparsity 0 changes nothing, not even in a dead channel', () => {
    const hessian = randomHessian(5, 20, 40);
    for (let j = 0; j < 20; j++) hessian[7 * 20 + j] = hessian[j * 20 + 7] = 0;
    const factor = factorOf(hessian);
    const w = Float32Array.from({ length: 40 }, normals(6));
    const { mask, weights } = sparseGpt(w, 2, factor, { kind: 'unstructured', sparsity: 0 });
    expect(mask.every((keep) => keep === 1)).toBe(true);
    expect(weights).toEqual(w);
  });
});
