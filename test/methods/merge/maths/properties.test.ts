import fc from 'fast-check';
import { betaMixture, kMeans } from '../../../../src/methods/merge/maths/clusters.js';
import {
  batchCoefficient,
  calibrateTau,
  coefficient,
} from '../../../../src/methods/merge/maths/coefficient.js';
import { dare, dareKey } from '../../../../src/methods/merge/maths/dare.js';
import { dawin, dawinOffset } from '../../../../src/methods/merge/maths/dawin.js';
import { entropies, jensenShannon } from '../../../../src/methods/merge/maths/disagreement.js';
import { weightedSum } from '../../../../src/methods/merge/maths/linear.js';
import { slerp } from '../../../../src/methods/merge/maths/slerp.js';
import {
  addElected,
  addTaskVectors,
  taskVector,
} from '../../../../src/methods/merge/maths/task-vectors.js';
import { applyTrim, MagnitudeRank, trimOf } from '../../../../src/methods/merge/maths/trim.js';

const floats = (minLength = 1, maxLength = 40) =>
  fc.float32Array({ minLength, maxLength, noNaN: true, min: -100, max: 100 });
/** Arrays of one length. */
const alike = (count: number) =>
  fc
    .integer({ min: 1, max: 30 })
    .chain((n) => fc.tuple(...Array.from({ length: count }, () => floats(n, n))));

const line = (a: Float32Array, b: Float32Array, t: number) => weightedSum([a, b], [1 - t, t]);

const rule = { form: 'centred', gamma: 20, lmin: 0.2, lmax: 0.9, tau: 1, kappa: 4 } as const;

describe('disagreement', () => {
  test('is symmetric, between 0 and ln 2, and 0 for equal logits', () => {
    fc.assert(
      fc.property(alike(2), ([p, q]) => {
        for (const link of ['softmax', 'sigmoid'] as const) {
          const [there] = jensenShannon(p, q, p.length, link);
          const [back] = jensenShannon(q, p, p.length, link);
          expect(there).toBeCloseTo(back, 12);
          expect(there).toBeGreaterThanOrEqual(0);
          expect(there).toBeLessThanOrEqual(Math.LN2 + 1e-12);
          expect(jensenShannon(p, p, p.length, link)[0]).toBeCloseTo(0, 12);
        }
      }),
    );
  });

  test('is what the definition says', () => {
    fc.assert(
      fc.property(alike(2), ([p, q]) => {
        const [a, b] = [p, q].map((z) => {
          const e = Array.from(z, (v) => Math.exp(v - Math.max(...z)));
          return e.map((v) => v / e.reduce((s, w) => s + w));
        });
        const kl = (x: number[]) =>
          x.reduce((s, v, i) => (v > 0 ? s + v * Math.log(v / ((a[i] + b[i]) / 2)) : s), 0);
        expect(jensenShannon(p, q, p.length)[0]).toBeCloseTo((kl(a) + kl(b)) / 2, 9);
        const entropy = a.reduce((s, v) => (v > 0 ? s - v * Math.log(v) : s), 0);
        expect(entropies(p, p.length)[0]).toBeCloseTo(entropy, 9);
      }),
    );
  });

  test('of labels on their own is the mean of that of yes and no', () => {
    fc.assert(
      fc.property(alike(2), ([p, q]) => {
        const labels = p.length;
        const mean = (values: Float64Array) => values.reduce((s, v) => s + v, 0) / labels;
        const [yesNo, other] = [p, q].map((z) => Float64Array.from([...z].flatMap((v) => [v, 0])));
        const [js] = jensenShannon(p, q, labels, 'sigmoid');
        expect(js).toBeCloseTo(mean(jensenShannon(yesNo, other, 2)), 12);
        expect(entropies(p, labels, 'sigmoid')[0]).toBeCloseTo(mean(entropies(yesNo, 2)), 12);
      }),
    );
  });

  test('huge logits, masked classes, and rows that are not finite', () => {
    const inf = Number.NEGATIVE_INFINITY;
    expect(jensenShannon([1e4, 0], [0, 1e4], 2)[0]).toBeCloseTo(Math.LN2, 12);
    expect(jensenShannon([0, inf], [inf, 0], 2)[0]).toBeCloseTo(Math.LN2, 12);
    expect(jensenShannon([Number.NaN, 0], [0, 0], 2)[0]).toBeNaN();
    expect(jensenShannon([Number.POSITIVE_INFINITY, 0], [0, 0], 2)[0]).toBeNaN();
    expect(jensenShannon([], [], 2)).toHaveLength(0);
  });
});

describe('coefficient', () => {
  test('rises with disagreement, between its limits; not finite is the largest', () => {
    const found = coefficient(Float64Array.of(0, 0.1, Math.LN2, Number.NaN), rule);
    expect(found[0]).toBeCloseTo(0.2, 12);
    expect(found[1]).toBeGreaterThan(found[0]);
    expect(found[2]).toBeCloseTo(0.9, 5);
    expect(found[3]).toBe(0.9);
  });

  test('of a batch: the mean, or that of the mean disagreement', () => {
    const js = Float64Array.of(0.01, 0.3, Number.NaN);
    const [a, b, c] = coefficient(js, rule);
    expect(batchCoefficient(js, rule)).toBeCloseTo((a + b + c) / 3, 12);
    const calibrated = { ...rule, form: 'calibrated', tau: 0.2 } as const;
    const [want] = coefficient(Float64Array.of((0.01 + 0.3 + Math.LN2) / 3), calibrated);
    expect(batchCoefficient(js, calibrated)).toBeCloseTo(want, 12);
  });

  test('τ has a floor', () => {
    expect(calibrateTau(Float64Array.of(0.1, 0.3, Number.NaN))).toEqual({
      tau: expect.closeTo(0.6, 12),
      floored: false,
    });
    expect(calibrateTau(new Float64Array(5))).toEqual({ tau: 1e-6, floored: true });
    expect(calibrateTau(Float64Array.of(Number.NaN))).toEqual({ tau: 1e-6, floored: true });
  });
});

describe('DaWin', () => {
  const entropy = fc.double({ min: 0, max: 12, noNaN: true });
  const lists = fc
    .array(fc.tuple(entropy, entropy), { maxLength: 20 })
    .map((pairs) => [0, 1].map((i) => Float64Array.from(pairs, (pair) => pair[i])));

  test('shares of two models sum to 1, and the more certain has the larger', () => {
    fc.assert(
      fc.property(lists, ([p, q]) => {
        const back = dawin(q, p);
        for (const [n, share] of dawin(p, q).entries()) {
          expect(share + back[n]).toBeCloseTo(1, 12);
          expect(share >= 0.5).toBe(Math.exp(-q[n]) >= Math.exp(-p[n]));
        }
      }),
    );
    expect(dawin(Float64Array.of(Number.NaN, 1), Float64Array.of(1, Number.NaN))).toEqual(
      Float64Array.of(0, 0),
    );
  });

  test('an offset leaves a share, whatever there is to go by', () => {
    fc.assert(
      fc.property(lists, ([p, q]) => {
        for (const share of dawin(p, q, dawinOffset(p, q))) {
          expect(share).toBeGreaterThanOrEqual(0);
          expect(share).toBeLessThanOrEqual(1);
        }
      }),
    );
    const none = { offset: 0, weight: 2 };
    const certain = new Float64Array(4);
    expect(dawinOffset(certain, certain)).toEqual(none);
    expect(dawinOffset(Float64Array.of(1), Float64Array.of(1))).toEqual(none);
    expect(dawinOffset(Float64Array.of(Number.NaN), Float64Array.of(Number.NaN))).toEqual(none);
  });
});

describe('static merges', () => {
  test('a mean of equal values is that value, to the bit, infinite or not', () => {
    const odd = Float32Array.of(0.1, -3e38, Number.NEGATIVE_INFINITY, 0);
    for (const models of [2, 3, 7]) {
      const weights = Array.from({ length: models }, () => 1 / models);
      expect(
        weightedSum(
          weights.map(() => odd),
          weights,
        ),
      ).toEqual(odd);
    }
  });

  test('ends of lines and arcs are the models, to the bit, and the models stay', () => {
    fc.assert(
      fc.property(alike(2), fc.double({ min: 0, max: 1, noNaN: true }), ([a, b], t) => {
        const before = [a.slice(), b.slice()];
        for (const merge of [slerp, line]) {
          expect(merge(a, b, 0)).toEqual(a);
          expect(merge(a, b, 1)).toEqual(b);
          merge(a, b, t);
          expect([a, b]).toEqual(before);
        }
      }),
    );
  });

  test('nothing comes of nothing', () => {
    const none = new Float64Array();
    const empty = new Float32Array();
    for (const merged of [
      line(empty, empty, 0.5),
      slerp(empty, empty, 0.5),
      addTaskVectors(empty, [taskVector(empty, empty)], 1),
      addElected(empty, [empty], 1),
    ])
      expect(merged).toEqual(empty);
    expect(applyTrim(empty, trimOf(empty, 0))).toBe(0);
    for (const found of [kMeans(none, 3), betaMixture(none, 3), coefficient(none, rule)])
      expect(found).toHaveLength(0);
  });

  test('an arc between vectors of one length keeps it', () => {
    const half = slerp(Float32Array.of(3, 0), Float32Array.of(0, 3), 0.5);
    expect(Math.hypot(...half)).toBeCloseTo(3, 6);
    expect(slerp(Float32Array.of(0, 0), Float32Array.of(0, 3), 0.5)).toEqual(
      Float32Array.of(0, 1.5),
    );
  });

  test('TIES is what a plain version of it says', () => {
    fc.assert(
      fc.property(alike(4), fc.double({ min: 0, max: 1, noNaN: true }), ([base, ...vectors], d) => {
        const keep = Math.round(d * base.length);
        const trimmed = vectors.map((v) => {
          const order = Array.from(v.keys()).sort(
            (i, j) => Math.abs(v[j]) - Math.abs(v[i]) || i - j,
          );
          const kept = new Set(order.slice(0, keep));
          return v.map((x, i) => (kept.has(i) ? x : 0));
        });
        const want = base.map((b, i) => {
          const column = trimmed.map((v) => v[i]);
          const sign = column.reduce((s, x) => s + x, 0) >= 0 ? 1 : -1;
          const agreeing = column.filter((x) => x * sign > 0);
          return agreeing.length ? b + agreeing.reduce((s, x) => s + x, 0) / agreeing.length : b;
        });
        const own = vectors.map((v) => v.slice());
        for (const v of own) applyTrim(v, trimOf(v, keep));
        expect(own.map((v) => v.filter((x) => x !== 0))).toEqual(
          trimmed.map((v) => v.filter((x) => x !== 0)),
        );
        expect(addElected(base, own, 1)).toEqual(want);
      }),
    );
  });

  test('a trim over many tensors is that of all of them in one', () => {
    fc.assert(
      fc.property(
        fc.array(floats(0, 20), { minLength: 1, maxLength: 5 }),
        fc.nat(60),
        (parts, n) => {
          const all = Float32Array.from(parts.flatMap((part) => [...part]));
          const keep = Math.min(n, all.length);
          const rank = new MagnitudeRank();
          for (const part of parts) rank.count(part);
          rank.choose(keep);
          for (const part of parts) rank.refine(part);
          expect(rank.result()).toEqual(trimOf(all, keep));
        },
      ),
    );
  });

  test('DARE keeps the expected share and the expected sum, whatever comes first', () => {
    const ones = new Float32Array(100_000).fill(1);
    const key = dareKey(7, 'layer.weight', ones);
    for (const density of [0.1, 0.5, 0.9]) {
      const kept = ones.slice();
      dare(kept, density, key);
      const share = kept.filter((v) => v !== 0).length / kept.length;
      expect(Math.abs(share - density)).toBeLessThan(0.01);
      expect(new Set(kept)).toEqual(new Set([0, Math.fround(1 / density)]));
    }
    const keys = [key, dareKey(8, 'layer.weight', ones), dareKey(7, 'other', ones)];
    expect(new Set([...keys, dareKey(7, 'layer.weight', ones.subarray(1))]).size).toBe(4);
    expect(dareKey(7, 'layer.weight', ones)).toBe(key);
  });

  test('DARE of everything changes nothing, and models choose on their own', () => {
    const ones = new Float32Array(100_000).fill(1);
    const [a, b] = [1, 2].map((model) => {
      const vector = ones.slice();
      dare(vector, 0.5, dareKey(7, 'layer.weight', Float32Array.of(model)));
      return vector;
    });
    const both = a.filter((v, i) => v !== 0 && b[i] !== 0).length / ones.length;
    expect(Math.abs(both - 0.25)).toBeLessThan(0.01);
    const all = a.slice();
    dare(all, 1, 7);
    expect(all).toEqual(a);
  });

  test('what is not moved stays, be it infinite', () => {
    const base = Float32Array.of(Number.NEGATIVE_INFINITY, 1);
    const still = [taskVector(base, base), new Float32Array(2)];
    expect(still[0]).toEqual(still[1]);
    expect(addTaskVectors(base, still, 0.3)).toEqual(base);
    expect(addElected(base, still, 0.3)).toEqual(base);
  });
});

describe('clusters', () => {
  test('centres rise, are means of what is nearest to them, and are no more than asked', () => {
    const numbers = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), {
      minLength: 1,
      maxLength: 60,
    });
    fc.assert(
      fc.property(numbers, fc.integer({ min: 1, max: 8 }), (values, k) => {
        const centres = kMeans(Float64Array.from(values), k);
        expect(centres.length).toBeGreaterThan(0);
        expect(centres.length).toBeLessThanOrEqual(k);
        expect(centres).toEqual([...centres].sort((a, b) => a - b));
        const own = centres.map((): number[] => []);
        for (const v of values) {
          const far = centres.map((c) => Math.abs(c - v));
          const nearest = far.map((d, i) => ({ d, i })).filter(({ d }) => d === Math.min(...far));
          if (nearest.length > 1) return; // Half way: either will do.
          own[nearest[0].i].push(v);
        }
        for (const [i, c] of centres.entries())
          if (own[i].length > 0)
            expect(own[i].reduce((s, v) => s + v, 0) / own[i].length).toBeCloseTo(c, 9);
      }),
    );
  });

  test('there are as many as asked, or as there are values, between the best cuts and none', () => {
    // Few steps: as of coefficients, many values are the same.
    const steps = fc.array(fc.nat(9), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 6 }), (numbers, k) => {
        const values = Float64Array.from(numbers, (i) => i / 9);
        const known = [...new Set(values)].sort((a, b) => a - b);
        const centres = kMeans(values, k);
        expect(centres).toHaveLength(Math.min(k, known.length));
        if (k >= known.length)
          for (const [i, c] of centres.entries()) expect(c).toBeCloseTo(known[i], 12);
        const best = leastSpread(
          [...values].sort((a, b) => a - b),
          k,
        );
        expect(spread(values, centres)).toBeGreaterThanOrEqual(best - 1e-12);
        expect(spread(values, centres)).toBeLessThanOrEqual(
          spread(values, kMeans(values, 1)) + 1e-12,
        );
      }),
    );
    expect(
      kMeans(
        Float64Array.from({ length: 100 }, (_, i) => (i < 99 ? 0 : 1)),
        2,
      ),
    ).toEqual([0, 1]);
  });

  test('two far heaps are what trying all cuts finds, however few are in one', () => {
    const size = fc.integer({ min: 1, max: 8 });
    fc.assert(
      fc.property(size, size, (...sizes) => {
        const values = sizes.flatMap((n, heap) =>
          Array.from({ length: n }, (_, i) => heap + i / 1e3),
        );
        const centres = kMeans(Float64Array.from(values), 2);
        expect(spread(values, centres)).toBeCloseTo(leastSpread(values, 2), 12);
      }),
    );
  });

  test('two heaps are found', () => {
    const heaps = Float64Array.from(
      { length: 200 },
      (_, i) => (i % 2 ? 0.1 : 0.8) + (i % 7) / 1000,
    );
    for (const find of [kMeans, betaMixture]) {
      const [low, high] = find(heaps, 2);
      expect(low).toBeCloseTo(0.103, 2);
      expect(high).toBeCloseTo(0.803, 2);
    }
    expect(betaMixture(Float64Array.of(0, 1, 1, 0), 2)).toHaveLength(2);
    expect(betaMixture(new Float64Array(5).fill(0.5), 3)).toEqual([expect.closeTo(0.5, 6)]);
  });
});

/** Squares of distances to the nearest centre. */
const spread = (values: ArrayLike<number>, centres: readonly number[]): number =>
  Array.from(values).reduce((sum, v) => sum + Math.min(...centres.map((c) => (c - v) ** 2)), 0);

/** The least spread of rising numbers in k clusters, of all ways to cut them. */
function leastSpread(rising: readonly number[], k: number): number {
  const whole = spread(rising, [rising.reduce((a, b) => a + b, 0) / rising.length]);
  if (k === 1) return whole;
  return rising.slice(1).reduce((least, _, i) => {
    const [first, rest] = [rising.slice(0, i + 1), rising.slice(i + 1)];
    return Math.min(least, leastSpread(first, 1) + leastSpread(rest, k - 1));
  }, whole);
}
