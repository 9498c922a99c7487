import { normal, uniformFor } from '../../../src/data/index.js';
import {
  alignmentTerm,
  keptInput,
  noiseInput,
  teacherInput,
  unlearningTerm,
} from '../../../src/methods/unlearn/laf/losses.js';
import { initialWeights, vaeSizes } from '../../../src/methods/unlearn/laf/vae.js';
import { byRepresentations } from './laf-terms.js';

const [count, width] = [5, 12];
const gauss = normal(uniformFor(1, 'losses'));
const drawn = (rows: number, columns: number, scale = 1) => ({
  dtype: 'float32' as const,
  dims: [rows, columns],
  data: Float32Array.from({ length: rows * columns }, () => scale * gauss()),
});
type Drawn = ReturnType<typeof drawn>;

/** Largest difference from slopes of `f`, relative to the largest slope. */
function againstSlopes(gradient: Float32Array, e: Float32Array, f: (e: Float64Array) => number) {
  const h = 1e-5;
  const slopes = Array.from(e, (_, i) => {
    const at = (d: number) => f(Float64Array.from(e, (v, k) => (k === i ? v + d : v)));
    return (at(h) - at(-h)) / (2 * h);
  });
  const largest = Math.max(...slopes.map(Math.abs));
  return Math.max(...slopes.map((s, i) => Math.abs(s - gradient[i]))) / largest;
}

const row = (a: ArrayLike<number>, i: number) =>
  Array.from({ length: width }, (_, k) => a[i * width + k]);
const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const distances = (e: ArrayLike<number>, teacher: ArrayLike<number>) =>
  Array.from({ length: e.length / width }, (_, i) => {
    const [a, b] = [row(e, i), row(teacher, i)];
    return 1 - dot(a, b) / Math.sqrt((dot(a, a) + 1e-12) * (dot(b, b) + 1e-12));
  });

describe('alignment', () => {
  const e = drawn(count, width).data;
  const teacher = drawn(count, width);

  test('of kept examples', async () => {
    const term = alignmentTerm('kept', 'e', 20);
    const { loss, gradient } = await byRepresentations({ values: e, width }, term, {
      [teacherInput]: teacher,
    });
    const f = (x: ArrayLike<number>) => distances(x, teacher.data).reduce((a, b) => a + b);
    expect(loss).toBeCloseTo(f(e), 5);
    expect(againstSlopes(gradient, e, f)).toBeLessThan(1e-5);
  });

  test.each([0.01, 0.5, 20])('of those to forget, at temperature %s', async (temperature) => {
    const kept = { dtype: 'float32' as const, dims: [], data: Float32Array.of(7) };
    const term = alignmentTerm('forgotten', 'e', temperature);
    const { loss, gradient } = await byRepresentations({ values: e, width }, term, {
      [teacherInput]: teacher,
      [keptInput]: kept,
    });
    const f = (x: ArrayLike<number>) => {
      const scaled = distances(x, teacher.data).map((d) => d / temperature);
      const most = Math.max(...scaled);
      return -7 * (most + Math.log(scaled.reduce((sum, d) => sum + Math.exp(d - most), 0)));
    };
    expect(Math.abs(loss / f(e) - 1)).toBeLessThan(1e-6);
    expect(againstSlopes(gradient, e, f)).toBeLessThan(1e-4);
  });

  test('representations without a direction are left out', async () => {
    const dead = e.slice();
    dead.fill(0, width, 2 * width);
    const { loss, gradient } = await byRepresentations(
      { values: dead, width },
      alignmentTerm('kept', 'e', 20),
      {
        [teacherInput]: teacher,
      },
    );
    const others = distances(dead, teacher.data).filter((_, i) => i !== 1);
    expect(loss).toBeCloseTo(
      others.reduce((a, b) => a + b),
      5,
    );
    expect(gradient.subarray(width, 2 * width).every((g) => g === 0)).toBe(true);
    expect(gradient.every(Number.isFinite)).toBe(true);
  });
});

describe('unlearning', () => {
  const sizes = vaeSizes(width, 4);
  const weights = initialWeights(sizes, uniformFor(1, 'weights'));
  const noise: Drawn = drawn(count, 4);

  /** A linear layer of one vector. */
  const linear = (name: string, x: number[]) => {
    const bias = weights.get(`${name}.bias`) as Float32Array;
    const w = weights.get(`${name}.weight`) as Float32Array;
    return Array.from(
      bias,
      (b, o) => b + x.reduce((sum, v, i) => sum + v * w[o * x.length + i], 0),
    );
  };
  const relu = (x: number[]) => x.map((v) => Math.max(v, 0));
  const errorOf = (e: number[], epsilon: ArrayLike<number>) => {
    const code = relu(linear('encoder.linear2', relu(linear('encoder.linear1', e))));
    const s = linear('encoder.linear3_2', code);
    const z = linear('encoder.linear3_1', code).map((m, k) => m + Math.exp(s[k] / 2) * epsilon[k]);
    const hidden = relu(linear('decoder.linear2', relu(linear('decoder.linear1', z))));
    return linear('decoder.linear3', hidden)
      .map((v) => 1 / (1 + Math.exp(-v)))
      .reduce((sum, v, k) => sum + (v - e[k]) ** 2, 0);
  };
  const term = (e: ArrayLike<number>) =>
    Array.from({ length: count }, (_, i) => {
      const m = errorOf(row(e, i), noise.data.subarray(i * 4, (i + 1) * 4));
      return Math.exp(m / (m + 1));
    }).reduce((a, b) => a + b);

  test.each([
    ['kept', 1, 1],
    ['forgotten', -1, 1],
    // Errors of thousands, where M / (M + 1) is next to 1.
    ['kept', 1, 30],
  ] as const)(
    'of %s examples: %s times the plain formula, representations of size %s',
    async (side, sign, scale) => {
      const e = drawn(count, width, scale).data;
      const { loss, gradient } = await byRepresentations(
        { values: e, width },
        unlearningTerm(side, 'e', sizes, weights),
        {
          [noiseInput]: noise,
        },
      );
      expect(loss).toBeCloseTo(sign * term(e), 4);
      if (scale === 1) expect(againstSlopes(gradient, e, (x) => sign * term(x))).toBeLessThan(1e-4);
      expect(gradient.some((g) => g !== 0)).toBe(true);
    },
  );
});
