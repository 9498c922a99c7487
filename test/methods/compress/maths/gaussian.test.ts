import fc from 'fast-check';
import type { Activation } from '../../../../src/methods/compress/maths/activation.js';
import {
  convolvedCovariance,
  type Filters,
  fitTapCorrelation,
  tapCorrelation,
  tapDistances,
} from '../../../../src/methods/compress/maths/gaussian-conv.js';
import {
  clip,
  leakyRelu,
  relu,
  reluCovariance,
} from '../../../../src/methods/compress/maths/gaussian-relu.js';
import {
  gelu,
  hardSwish,
  silu,
  smooth,
} from '../../../../src/methods/compress/maths/gaussian-smooth.js';
import {
  compressedStep,
  gaussianStep,
} from '../../../../src/methods/compress/maths/gaussian-step.js';
import { range } from '../../../../src/methods/compress/maths/mixing.js';
import { addSignals } from '../../../../src/methods/compress/maths/moments.js';
import { cumulative, gaussLegendre } from '../../../../src/methods/compress/maths/normal.js';
import { choleskyInPlace } from '../../../../src/methods/linalg/cholesky.js';
import { normals } from '../../sparsify/random.js';
import { distance, randomArray, randomCovariance, times, transposed } from './numbers.js';

test('the normal distribution', () => {
  // From tables.
  expect(cumulative(1.959963984540054)).toBeCloseTo(0.975, 14);
  expect(cumulative(-5) / 2.866515718791939e-7).toBeCloseTo(1, 12);
  expect(cumulative(-3.5) / cumulative(-3.5000001)).toBeCloseTo(1, 5);
  expect([cumulative(0), cumulative(Infinity), cumulative(-Infinity)]).toEqual([0.5, 1, 0]);
  const { nodes, weights } = gaussLegendre(24);
  const moment = (k: number) => nodes.reduce((sum, x, n) => sum + weights[n] * x ** k, 0);
  for (const k of [0, 1, 7, 47]) expect(moment(k)).toBeCloseTo(1 / (k + 1), 13);
});

test('without means, the covariance of ReLUs is the arc-cosine kernel', () => {
  for (const rho of [-0.999, -0.5, 0, 0.3, 0.9, 0.9999]) {
    const second = (Math.sqrt(1 - rho * rho) + rho * (Math.PI - Math.acos(rho))) / (2 * Math.PI);
    expect(reluCovariance(0, 0, rho)).toBeCloseTo(second - 1 / (2 * Math.PI), 7);
  }
});

test('where fewer nodes do, the covariance of ReLUs has no step', () => {
  for (const [h, k] of [
    [0, 0],
    [1.5, -0.7],
    [-2, 0.3],
    [3, 3],
  ]) {
    for (const rho of [-0.4, 0.4]) {
      const below = reluCovariance(h, k, rho * (1 - 1e-12));
      expect(Math.abs(reluCovariance(h, k, rho) - below)).toBeLessThan(2e-12);
    }
  }
});

describe('activations agree with sampling', () => {
  const plain: [string, Activation, (u: number) => number][] = [
    ['relu', relu, (u) => Math.max(0, u)],
    ['leaky', leakyRelu(0.2), (u) => Math.max(0.2 * u, u)],
    ['relu6', clip(0, 6), (u) => Math.min(6, Math.max(0, u))],
    ['clip', clip(-1, 0.5), (u) => Math.min(0.5, Math.max(-1, u))],
    ['min', clip(-Infinity, 1), (u) => Math.min(1, u)],
    ['silu', silu, (u) => u / (1 + Math.exp(-u))],
    ['gelu', gelu, (u) => u * cumulative(u)],
    ['hardswish', hardSwish, (u) => (u * Math.min(6, Math.max(0, u + 3))) / 6],
    ['tanh', smooth(Math.tanh), Math.tanh],
  ];
  const mean = Float64Array.of(0.3, -0.8, 4);
  const factor = Float64Array.of(1, 0, 0, 0.6, 1.1, 0, -1.5, 0.7, 1.8);
  const covariance = times(factor, transposed(factor, 3), 3, 3);
  const samples = 40_000;

  test.each(plain)('%s', (_, activation, f) => {
    const next = normals(7);
    const sum = new Float64Array(3);
    const products = new Float64Array(9);
    for (let t = 0; t < samples; t++) {
      const z = [next(), next(), next()];
      const y = [0, 1, 2].map((i) =>
        f(mean[i] + z.reduce((total, value, k) => total + factor[i * 3 + k] * value, 0)),
      );
      for (let i = 0; i < 3; i++) {
        sum[i] += y[i] / samples;
        for (let j = 0; j < 3; j++) products[i * 3 + j] += (y[i] * y[j]) / samples;
      }
    }
    const want = products.map((x, k) => x - sum[Math.floor(k / 3)] * sum[k % 3]);
    const got = activation.moments({ mean, covariance });
    // About four standard errors of the largest channel.
    expect(distance(got.mean, sum)).toBeLessThan(0.04);
    expect(distance(got.covariance, want)).toBeLessThan(0.12);
    const scale = Math.max(...want.map(Math.abs));
    expect(distance(got.covariance, want) / scale).toBeLessThan(0.03);
  });

  test('a linear function leaves the covariance as it is, by either way', () => {
    const same = leakyRelu(1).moments({ mean, covariance });
    expect(distance(same.covariance, covariance)).toBeLessThan(1e-8);
    const series = smooth((u) => u).moments({ mean, covariance });
    expect(distance(series.covariance, covariance)).toBeLessThan(1e-8);
    expect(distance(series.mean, mean)).toBeLessThan(1e-12);
  });

  test('channels that never vary do not covary', () => {
    const dead = { mean: Float64Array.of(2, -1, 1), covariance: new Float64Array(9) };
    dead.covariance[8] = 1;
    for (const activation of [relu, clip(0, 6), silu]) {
      const { covariance: after, mean: means } = activation.moments(dead);
      expect(distance(after.subarray(0, 8), new Float64Array(8))).toBeLessThan(1e-15);
      expect(means.every(Number.isFinite)).toBe(true);
    }
    expect([...relu.moments(dead).mean.subarray(0, 2)]).toEqual([2, 0]);
  });
});

test('a channel that is always on keeps its variance, one that is always off loses it', () => {
  for (const activation of [relu, clip(0, Infinity)]) {
    const { mean, covariance } = activation.moments({
      mean: Float64Array.of(5e6, -5e6),
      covariance: Float64Array.of(0.007, 0.003, 0.003, 0.007),
    });
    expect([...mean]).toEqual([5e6, 0]);
    expect(distance(covariance, [0.007, 0, 0, 0])).toBeLessThan(1e-15);
  }
});

test('a covariance stays positive semidefinite', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e6 }), (seed) => {
      const before = { mean: randomArray(12, seed), covariance: randomCovariance(12, seed + 1) };
      for (const activation of [relu, clip(0, 6), leakyRelu(0.1), silu]) {
        const { covariance } = activation.moments(before);
        for (let i = 0; i < 12; i++) covariance[i * 13] += 1e-9;
        expect(choleskyInPlace(covariance, 12)).toBe(true);
      }
    }),
    { numRuns: 15 },
  );
});

/** Left·(C ⊗ T)·Rightᵀ with everything written out. */
function naiveCovariance(left: Filters, right: Filters, c: Float64Array, t: Float64Array) {
  const taps = Math.sqrt(t.length);
  const expand = ({ weights, outputs, inputs, groups }: Filters) => {
    const out = new Float64Array(outputs * inputs * taps);
    const depth = inputs / groups;
    for (let i = 0; i < outputs; i++) {
      const first = Math.floor((i * groups) / outputs) * depth;
      out.set(
        weights.subarray(i * depth * taps, (i + 1) * depth * taps),
        (i * inputs + first) * taps,
      );
    }
    return out;
  };
  const rows = left.inputs * taps;
  const cols = right.inputs * taps;
  const kron = Float64Array.from({ length: rows * cols }, (_, k) => {
    const [i, j] = [Math.floor(k / cols), k % cols];
    const pair = Math.floor(i / taps) * right.inputs + Math.floor(j / taps);
    return c[pair] * t[(i % taps) * taps + (j % taps)];
  });
  const product = times(expand(left), kron, left.outputs, cols);
  return times(product, transposed(expand(right), right.outputs), left.outputs, right.outputs);
}

const filtersOf = (
  outputs: number,
  inputs: number,
  kernel: number[],
  groups: number,
  seed: number,
): Filters => {
  const taps = kernel.reduce((a, b) => a * b, 1);
  const weights = randomArray((outputs * inputs * taps) / groups, seed);
  return { weights, outputs, inputs, kernel, groups };
};

describe('convolvedCovariance', () => {
  test.each([
    [5, 4, [3, 3], 1],
    [70, 3, [2], 1],
    [6, 8, [], 1],
    [6, 4, [3, 3], 2],
    [6, 6, [3, 3], 6],
    [140, 2, [1, 1], 2],
  ])('%i outputs, %i inputs, kernel %j, %i groups', (outputs, inputs, kernel, groups) => {
    const filters = filtersOf(outputs, inputs, kernel, groups, 1);
    const c = randomCovariance(inputs, 2);
    const t = tapCorrelation(filters, 0.7);
    const want = naiveCovariance(filters, filters, c, t);
    expect(distance(convolvedCovariance(filters, filters, c, t), want)).toBeLessThan(1e-10);
    const other = filtersOf(4 * groups, inputs * 2, kernel, groups, 3);
    const cross = randomArray(inputs * inputs * 2, 4);
    const across = naiveCovariance(filters, other, cross, t);
    expect(distance(convolvedCovariance(filters, other, cross, t), across)).toBeLessThan(1e-10);
    const turned = convolvedCovariance(other, filters, transposed(cross, inputs), t);
    expect(distance(turned, transposed(across, outputs))).toBeLessThan(1e-10);
  });

  test('distances of taps', () => {
    const filters = filtersOf(1, 1, [2, 2], 1, 1);
    const diagonal = Math.SQRT2;
    expect([...tapDistances(filters)]).toEqual([
      0,
      1,
      1,
      diagonal,
      1,
      0,
      diagonal,
      1,
      1,
      diagonal,
      0,
      1,
      diagonal,
      1,
      1,
      0,
    ]);
    expect(tapDistances({ ...filters, kernel: [4], dilations: [3] })[3]).toBe(9);
    expect([...tapCorrelation({ ...filters, kernel: [2] }, 0)]).toEqual([1, 0, 0, 1]);
  });

  test.each([1, 3])('r is found again, %i groups', (groups) => {
    const filters = filtersOf(30, 6, [3, 3], groups, 5);
    const c = randomCovariance(6, 6);
    const r = (17 * 0.98) / 49;
    const covariance = convolvedCovariance(filters, filters, c, tapCorrelation(filters, r));
    const variance = Float64Array.from({ length: 30 }, (_, i) => covariance[i * 31]);
    expect(fitTapCorrelation(filters, c, variance)).toBeCloseTo(r, 12);
    expect(fitTapCorrelation(filters, c, new Float64Array(30))).toBeNaN();
  });
});

describe('a step', () => {
  const filters = filtersOf(6, 4, [3, 3], 1, 8);
  const norm = {
    gamma: Float64Array.of(1, -2, 0.5, 0, 1, 1),
    beta: randomArray(6, 9),
    mean: randomArray(6, 10),
    variance: randomArray(6, 11).map((x) => x * x + 1),
    epsilon: 1e-5,
  };
  const original = { mean: randomArray(4, 12), covariance: randomCovariance(4, 13) };

  test('BatchNormalization says means and variances', () => {
    const { preActivation } = gaussianStep(original, { filters, norm });
    expect(preActivation.mean).toEqual(norm.beta);
    const { gamma, variance, epsilon } = norm;
    const want = gamma.map((x, i) => (x * x * variance[i]) / (variance[i] + epsilon));
    const got = want.map((_, i) => preActivation.covariance[i * 7]);
    expect(distance(got, want)).toBeLessThan(1e-12);
  });

  test.each([
    [norm, false],
    [norm, true],
    [undefined, false],
  ])('a layer left as it is has the same moments in both networks', (given, refit) => {
    const layer = { filters, norm: given, bias: randomArray(6, 14) };
    const step = gaussianStep(original, layer);
    const same = compressedStep({ original }, layer, step, { filters, kept: range(6) }, refit);
    const { mean, covariance, cross } = same.preActivation;
    expect(distance(mean, step.preActivation.mean)).toBeLessThan(1e-12);
    expect(distance(covariance, step.preActivation.covariance)).toBeLessThan(1e-12);
    expect(distance(cross, step.preActivation.covariance)).toBeLessThan(1e-12);
    expect(same.bias).toEqual(layer.bias);
    if (given) {
      expect(distance(same.norm!.mean, given.mean)).toBeLessThan(1e-12);
      expect(distance(same.norm!.variance, given.variance)).toBeLessThan(1e-12);
    }
  });

  test('a shift goes into the mean of BatchNormalization, or into the bias', () => {
    const kept = Uint32Array.of(1, 4);
    const rows = Float64Array.of(
      ...filters.weights.slice(36, 72),
      ...filters.weights.slice(144, 180),
    );
    const compressed = {
      filters: { ...filters, weights: rows, outputs: 2 },
      kept,
      shift: Float64Array.of(0.5, -1),
    };
    const step = gaussianStep(original, { filters, norm });
    const { norm: shifted } = compressedStep({ original }, { filters, norm }, step, compressed);
    expect(distance(shifted!.mean, [norm.mean[1] - 0.5, norm.mean[4] + 1])).toBeLessThan(1e-12);
    const plain = gaussianStep(original, { filters }, 0.5);
    const { bias, preActivation } = compressedStep({ original }, { filters }, plain, compressed);
    expect(distance(bias!, [0.5, -1])).toBeLessThan(1e-12);
    const want = [plain.preActivation.mean[1] + 0.5, plain.preActivation.mean[4] - 1];
    expect(distance(preActivation.mean, want)).toBeLessThan(1e-10);
  });

  test('refitting gives the original means and variances back to a changed layer', () => {
    const layer = { filters, norm };
    const step = gaussianStep(original, layer);
    const weights = filters.weights.map((x) => Math.round(2 * x) / 2);
    const changed = { filters: { ...filters, weights }, kept: range(6) };
    const { preActivation } = compressedStep({ original }, layer, step, changed, true);
    expect(preActivation.mean).toEqual(norm.beta);
    const variances = (covariance: Float64Array) => norm.beta.map((_, i) => covariance[i * 7]);
    const want = variances(step.preActivation.covariance);
    expect(distance(variances(preActivation.covariance), want)).toBeLessThan(1e-4);
  });

  test('sums add means and covariances', () => {
    const compressed = { ...original, cross: original.covariance };
    const sum = addSignals({ original }, { original, compressed });
    const twice = original.covariance.map((x) => 2 * x);
    expect(sum.original.covariance).toEqual(twice);
    expect(sum.compressed!.cross).toEqual(twice);
    expect(addSignals({ original }, { original }).compressed).toBeUndefined();
  });
});
