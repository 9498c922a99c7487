import fc from 'fast-check';
import { eliminate, importance } from '../../../../src/methods/compress/maths/elimination.js';
import { equalize } from '../../../../src/methods/compress/maths/equalize.js';
import { dropMatrix, mixAxis, range } from '../../../../src/methods/compress/maths/mixing.js';
import { neuronMerging } from '../../../../src/methods/compress/maths/neuron-merging.js';
import { reconstruct } from '../../../../src/methods/compress/maths/reconstruct.js';
import {
  geometricMedianDistances,
  highest,
  keptCount,
} from '../../../../src/methods/compress/maths/select.js';
import { udfcMixing } from '../../../../src/methods/compress/maths/udfc.js';
import {
  distance,
  naiveInverse,
  randomArray,
  randomCovariance,
  times,
  transposed,
} from './numbers.js';

const seeds = fc.integer({ min: 1, max: 1e6 });
const runs = { numRuns: 25 };

const randomAffine = (n: number, seed: number) => ({
  scale: randomArray(n, seed).map((x) => x + 2),
  shift: randomArray(n, seed + 1),
});

describe('mixAxis', () => {
  test.each([
    [3, 6, 4, 1],
    [1, 5, 7, 1],
    [8, 3, 9, 4],
  ])('outer %i, channels %i, inner %i, groups %i', (outer, channels, inner, groups) => {
    const width = 2;
    const kept = width * groups;
    const all = channels * groups;
    const v = randomArray(outer * channels * inner, 1);
    const s = randomArray(all * kept, 2);
    const got = mixAxis(v, { outer, channels, inner }, s, kept, groups);
    const want = new Float64Array(outer * width * inner);
    for (let p = 0; p < outer; p++) {
      const group = Math.floor((p * groups) / outer);
      for (let i = 0; i < channels; i++) {
        for (let m = 0; m < width; m++) {
          const share = s[(group * channels + i) * kept + group * width + m];
          for (let t = 0; t < inner; t++) {
            want[(p * width + m) * inner + t] += v[(p * channels + i) * inner + t] * share;
          }
        }
      }
    }
    expect(distance(got, want)).toBeLessThan(1e-12);
  });

  test('keeping every channel changes no bit', () => {
    const v = randomArray(4 * 5 * 9, 3);
    const view = { outer: 4, channels: 5, inner: 9 };
    expect(mixAxis(v, view, dropMatrix(range(5), 5), 5)).toEqual(v);
  });
});

describe('udfcMixing', () => {
  const n = 9;
  const depth = 20;
  const kept = Uint32Array.of(0, 2, 3, 7);

  test('is the formula, with naive inverses, when weights are rounded', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const filters = randomArray(n * depth, seed);
        const rounded = filters.map((x) => Math.round(4 * x) / 4);
        const affine = randomAffine(n, seed);
        const { s } = udfcMixing({ filters, rounded, affine, kept });
        const scaled = (w: Float64Array) =>
          w.map((x, k) => x * affine.scale[Math.floor(k / depth)]);
        const g = scaled(filters);
        const basis = scaled(rounded);
        const gk = Float64Array.from(
          [...kept].flatMap((c) => [...basis.subarray(c * depth, (c + 1) * depth)]),
        );
        const gram = times(gk, transposed(gk, 4), 4, 4);
        const tau = (gram[0] + gram[5] + gram[10] + gram[15]) / 4;
        const cross = times(g, transposed(gk, 4), n, 4);
        const { shift: b } = affine;
        for (let m = 0; m < 4; m++) {
          for (let i = 0; i < n; i++) {
            cross[i * 4 + m] += 0.01 * b[i] * b[kept[m]] + (i === kept[m] ? 0.008 * tau : 0);
          }
          for (let k = 0; k < 4; k++) {
            gram[k * 4 + m] += 0.01 * b[kept[k]] * b[kept[m]] + (k === m ? 0.008 * tau : 0);
          }
        }
        expect(distance(s, times(cross, naiveInverse(gram), n, 4))).toBeLessThan(1e-10);
      }),
      runs,
    );
  });

  test('kept channels stand for exactly themselves; nothing removed, nothing changed', () => {
    const filters = randomArray(n * depth, 5);
    const affine = randomAffine(n, 6);
    const { s } = udfcMixing({ filters, affine, kept });
    kept.forEach((channel, m) => {
      const row = s.subarray(channel * 4, (channel + 1) * 4);
      expect([...row]).toEqual([0, 1, 2, 3].map((k) => (k === m ? 1 : 0)));
    });
    expect(udfcMixing({ filters, affine, kept: range(n) }).s).toEqual(dropMatrix(range(n), n));
  });

  test('follows a permutation of the removed channels', () => {
    const filters = randomArray(n * depth, 7);
    const affine = randomAffine(n, 8);
    const swap = (a: Float64Array, width: number) => {
      const out = a.slice();
      out.set(a.subarray(width, 2 * width), 4 * width);
      out.set(a.subarray(4 * width, 5 * width), width);
      return out;
    };
    const { s } = udfcMixing({ filters, affine, kept });
    const swapped = udfcMixing({
      filters: swap(filters, depth),
      affine: { scale: swap(affine.scale, 1), shift: swap(affine.shift, 1) },
      kept,
    });
    expect(distance(swapped.s, swap(s, 4))).toBeLessThan(1e-12);
  });

  test('a channel that is a combination of kept ones is rebuilt when nothing pulls', () => {
    const filters = randomArray(n * depth, 9);
    const affine = { scale: new Float64Array(n).fill(1), shift: new Float64Array(n) };
    for (let k = 0; k < depth; k++) filters[depth + k] = 2 * filters[k] - filters[7 * depth + k];
    const { s } = udfcMixing({ filters, affine, kept }, { alpha1: 0, alpha2: 0 });
    expect(distance(s.subarray(4, 8), [2, 0, 0, -1])).toBeLessThan(1e-10);
  });

  test('singular systems are ridged until they are not, or S is its prior', () => {
    const affine = randomAffine(n, 10);
    const parallel = randomArray(n * depth, 11);
    parallel.copyWithin(2 * depth, 0, depth);
    const ridged = udfcMixing({ filters: parallel, affine, kept }, { alpha1: 0, alpha2: 0 });
    expect(ridged.ridge).toBeGreaterThan(0);
    expect(ridged.s.every((x) => Math.abs(x) < 100)).toBe(true);
    // More channels than taps.
    const shallow = udfcMixing(
      { filters: randomArray(n * 2, 12), affine, kept },
      { alpha1: 0, alpha2: 0 },
    );
    expect(shallow.s.every(Number.isFinite)).toBe(true);
    const nothing = udfcMixing(
      { filters: new Float64Array(n * depth), affine, kept },
      { alpha1: 0 },
    );
    expect(nothing).toEqual({ s: dropMatrix(kept, n), ridge: Infinity, condition: Infinity });
  });

  test('blocks do not mix', () => {
    const filters = randomArray(8 * depth, 13);
    const affine = randomAffine(8, 14);
    const layer = { filters, affine, kept: Uint32Array.of(1, 2, 4, 7), blocks: 2 };
    const { s } = udfcMixing(layer, { relativeRidge: false });
    const half = (from: number, channels: number[]) => {
      const { s: block } = udfcMixing(
        {
          filters: filters.slice(from * depth, (from + 4) * depth),
          affine: {
            scale: affine.scale.slice(from, from + 4),
            shift: affine.shift.slice(from, from + 4),
          },
          kept: Uint32Array.from(channels),
        },
        { relativeRidge: false },
      );
      return block;
    };
    const first = half(0, [1, 2]);
    const second = half(4, [0, 3]);
    const want = new Float64Array(32);
    for (let i = 0; i < 4; i++) {
      want.set(first.subarray(2 * i, 2 * i + 2), 4 * i);
      want.set(second.subarray(2 * i, 2 * i + 2), 16 + 4 * i + 2);
    }
    expect(distance(s, want)).toBeLessThan(1e-10);
  });
});

test('neuron merging finds the parallel filter and its ratio', () => {
  const filters = randomArray(4 * 10, 15);
  for (let k = 0; k < 10; k++) filters[30 + k] = 3 * filters[10 + k];
  const affine = { scale: Float64Array.of(1, 2, 1, 4), shift: Float64Array.of(0, 1, 5, 6) };
  const s = neuronMerging(filters, affine, Uint32Array.of(0, 1, 2));
  expect(distance(s.subarray(9), [0, 6, 0])).toBeLessThan(1e-12);
});

describe('reconstruct', () => {
  test('is the regression of y on ỹ', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const joint = randomCovariance(8, seed);
        const block = (rows: number[], cols: number[]) =>
          Float64Array.from(rows.flatMap((i) => cols.map((j) => joint[i * 8 + j])));
        const y = [0, 1, 2, 3, 4];
        const other = [5, 6, 7];
        const original = { mean: randomArray(5, seed), covariance: block(y, y) };
        const compressed = {
          mean: randomArray(3, seed + 1),
          covariance: block(other, other),
          cross: block(y, other),
        };
        const { s, delta } = reconstruct(original, Uint32Array.of(0, 1, 4), compressed, {
          ridge: 0,
        });
        const want = times(compressed.cross, naiveInverse(compressed.covariance), 5, 3);
        expect(distance(s, want)).toBeLessThan(1e-6);
        const rest = times(s, compressed.mean, 5, 1).map((x, i) => original.mean[i] - x);
        expect(distance(delta, rest)).toBeLessThan(1e-10);
      }),
      runs,
    );
  });

  test('nothing removed, nothing changed', () => {
    const moments = { mean: randomArray(6, 1), covariance: randomCovariance(6, 2) };
    const { s, delta } = reconstruct(moments, range(6));
    expect(s).toEqual(dropMatrix(range(6), 6));
    expect(delta).toEqual(new Float64Array(6));
  });
});

describe('eliminate', () => {
  const n = 7;
  const ridge = 1e-3;

  /** Expected squared error of the consumers when only `kept` is left, by Σ Q∘Cov(y - S·y). */
  function error(c: Float64Array, q: Float64Array, kept: number[]): number {
    const k = kept.length;
    const gram = Float64Array.from(kept.flatMap((i) => kept.map((j) => c[i * n + j])));
    const cross = Float64Array.from(
      Array.from({ length: n }, (_, i) => kept.map((j) => c[i * n + j])).flat(),
    );
    const explained = times(times(cross, naiveInverse(gram), n, k), transposed(cross, n), n, n);
    return c.reduce((sum, x, at) => sum + q[at] * (x - explained[at]), 0);
  }

  test('removes what costs least, at what it costs', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const covariance = randomCovariance(n, seed);
        const v = randomArray(4 * n * 3, seed + 1);
        const q = importance(v, { outer: 4, channels: n, inner: 3 });
        const result = eliminate(n, [{ covariance, importance: q }], { keep: 2, ridge })!;
        const total = covariance.reduce((sum, x, k) => sum + x * q[k], 0);
        const c = covariance.slice();
        let trace = 0;
        for (let i = 0; i < n; i++) trace += covariance[i * (n + 1)];
        for (let i = 0; i < n; i++) c[i * (n + 1)] += (ridge * trace) / n;
        let alive = [...range(n)];
        let damage = 0;
        result.order.forEach((removed, step) => {
          const costs = alive.map(
            (m) =>
              error(
                c,
                q,
                alive.filter((i) => i !== m),
              ) /
                total -
              damage,
          );
          expect(alive[costs.indexOf(Math.min(...costs))]).toBe(removed);
          expect(result.costs[step]).toBeCloseTo(Math.min(...costs), 8);
          damage += result.costs[step];
          alive = alive.filter((i) => i !== removed);
        });
        expect([...result.kept]).toEqual(alive);
        expect(result.damage).toBeCloseTo(damage, 12);
      }),
      runs,
    );
  });

  test('keeps as many of each group, and takes the lowest of equals', () => {
    const covariance = randomCovariance(8, 3);
    const view = { covariance, importance: randomCovariance(8, 4) };
    const blocks = [
      [0, 1, 2, 3],
      [4, 5, 6, 7],
    ];
    const { kept } = eliminate(8, [view], { keep: 4, limits: { blocks } })!;
    expect(kept.filter((channel) => channel < 4)).toHaveLength(2);
    const nothing = { covariance: new Float64Array(9), importance: new Float64Array(9) };
    expect([...eliminate(3, [nothing], { keep: 1 })!.order]).toEqual([0, 1]);
  });

  test('shared channels: a tensor seen twice decides as one', () => {
    const view = { covariance: randomCovariance(n, 5), importance: randomCovariance(n, 6) };
    const once = eliminate(n, [view], { keep: 2 })!;
    const twice = eliminate(n, [view, view], { keep: 2 })!;
    expect(twice.order).toEqual(once.order);
    expect(twice.damage).toBeCloseTo(2 * once.damage, 10);
  });

  test('importance of a grouped consumer is block diagonal', () => {
    const v = randomArray(4 * 2 * 3, 7);
    const scale = Float64Array.of(1, 2, 3, 4);
    const q = importance(v, { outer: 4, channels: 2, inner: 3 }, scale, 2);
    let want = 0;
    for (const p of [2, 3]) {
      for (let t = 0; t < 3; t++) want += scale[p] ** 2 * v[p * 6 + t] * v[p * 6 + 3 + t];
    }
    expect(q[2 * 4 + 3]).toBeCloseTo(want, 12);
    expect([q[2], q[3], q[6], q[7]]).toEqual([0, 0, 0, 0]);
  });
});

describe('selection', () => {
  test.each([
    [10, { ratio: 0 }, 10],
    [10, { ratio: 0.25 }, 8],
    [10, { ratio: 0.75 }, 2],
    [10, { ratio: 0.99 }, 1],
    [48, { ratio: 0.3 }, 34],
    [48, { ratio: 0.3, align: 16 }, 48],
    [64, { ratio: 0.3, align: 16 }, 48],
    [12, { ratio: 0.5, align: 16 }, 12],
    [12, { ratio: 0.5, groups: 4 }, 8],
  ])('%i channels, %j: %i kept', (channels, options, want) => {
    expect(keptCount(channels, options)).toBe(want);
  });

  test('highest takes the lower of equals, and as many of each group', () => {
    expect([...highest(Float64Array.of(1, 2, 2, 2), 2)]).toEqual([1, 2]);
    const limits = {
      blocks: [
        [0, 1],
        [2, 3],
      ],
    };
    expect([...highest(Float64Array.of(9, 8, 1, 2), 2, limits)]).toEqual([0, 3]);
    expect([...highest(Float64Array.of(9, 8, 1, 2), 2, { parts: [[2, 3]] })]).toEqual([0, 3]);
  });

  test('the middle one of three filters has the least distance', () => {
    const distances = geometricMedianDistances(Float64Array.of(0, 0, 3, 4, 6, 8), 3, 2);
    expect(distance(distances, [15, 10, 15])).toBeLessThan(1e-12);
  });
});

test('equalizing leaves the function as it was, and both ranges equal', () => {
  const [w, b, v] = [randomArray(3 * 4, 1), randomArray(3, 2), randomArray(2 * 3, 3)];
  w.fill(0, 8);
  const view = { outer: 2, channels: 3, inner: 1 };
  const after = equalize(w, b, v, view);
  const x = randomArray(4, 4);
  const run = (weight: Float64Array, bias: Float64Array, next: Float64Array) =>
    times(
      next,
      times(weight, x, 3, 1).map((u, i) => Math.max(0, u + bias[i])),
      2,
      1,
    );
  expect(distance(run(w, b, v), run(after.w, after.b, after.v))).toBeLessThan(1e-12);
  const made = Math.max(...after.w.subarray(0, 4).map(Math.abs));
  expect(Math.max(Math.abs(after.v[0]), Math.abs(after.v[3]))).toBeCloseTo(made, 12);
  expect(after.scales[2]).toBe(1);
});
