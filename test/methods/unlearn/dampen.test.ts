import fc from 'fast-check';
import { countSelected, dampen } from '../../../src/methods/unlearn/ssd/dampen.js';
import { byParameter, casesWithImportances, golden, readFloats } from './golden-ssd.js';

describe('the authors’ code', () => {
  const { w, imp_D, imp_Df, cases } = golden.dampen_unit;
  const full = Float32Array.from(imp_D, Number);
  const forget = Float32Array.from(imp_Df, Number);

  test.each(cases)('α $alpha, λ $lambda, p $exponent, cap $lower_bound', (unit) => {
    const { alpha, lambda, exponent, lower_bound: cap, out } = unit;
    const options = { alpha, lambda, exponent, cap };
    const { weights } = dampen(Float32Array.from(w), forget, full, options);
    for (const [i, expected] of out.entries())
      expect(Math.abs(weights[i] - expected)).toBeLessThanOrEqual(1e-6);
    const wide = dampen(Float32Array.from(w), Float64Array.from(forget), full, options);
    for (const [i, expected] of out.entries())
      expect(Math.abs(wide.weights[i] - expected)).toBeLessThanOrEqual(1e-6);
  });

  const runs = casesWithImportances.flatMap(({ id, model, pairs, dampened, assd }) =>
    [...dampened, ...(assd ? [assd] : [])].map((run) => ({ id, model, pairs, ...run })),
  );
  test.each(runs)('$id, α $alpha, λ $lambda', (run) => {
    const { model, pairs, alpha, lambda, file } = run;
    const parameters = byParameter(model, readFloats(`${model}/params.npy`));
    const expected = file && byParameter(model, readFloats(file));
    const selected: Record<string, number> = {};
    for (const [i, { name, values }] of parameters.entries()) {
      const { forget, full } = pairs[i];
      const result = dampen(values, forget, full, { alpha, lambda });
      selected[name] = result.selected;
      expect(countSelected(pairs[i], alpha)).toBe(result.selected);
      if (!expected) continue;
      const apart = result.weights.map((weight, j) => Math.abs(weight - expected[i].values[j]));
      expect(Math.max(...apart)).toBeLessThanOrEqual(1e-6);
    }
    expect(selected).toEqual(run.per_param_selected);
    expect(Object.values(selected).reduce((a, b) => a + b)).toBe(run.n_selected);
  });

  test('there are stored weights and a run that selects nothing', () => {
    expect(runs.filter(({ file }) => file)).toHaveLength(8);
    expect(runs.some(({ n_selected }) => n_selected === 0)).toBe(true);
  });
});

/** Weights with importances, zeros, infinities and NaN among them. */
const importance = fc.oneof(
  fc.float({ min: 0, noNaN: false }),
  fc.constantFrom(0, 1e-30, 1, 2, Number.POSITIVE_INFINITY),
);
const entries = fc.array(
  fc.tuple(fc.float({ noNaN: true, noDefaultInfinity: true }), importance, importance),
  { maxLength: 20 },
);
const arrays = (rows: [number, number, number][]) => ({
  w: Float32Array.from(rows, ([weight]) => weight),
  forget: Float32Array.from(rows, ([, value]) => value),
  full: Float32Array.from(rows, ([, , value]) => value),
});
const positive = fc.double({ min: 1e-3, max: 1e3, noNaN: true });

test('λ <= α never grows a weight nor turns its sign, and the rest stays as it was', () => {
  fc.assert(
    fc.property(
      entries,
      positive,
      fc.double({ min: 0, max: 1, noNaN: true }),
      (rows, alpha, share) => {
        const { w, forget, full } = arrays(rows);
        const { weights } = dampen(w, forget, full, { alpha, lambda: alpha * share });
        for (let i = 0; i < w.length; i++) {
          expect(Math.abs(weights[i])).toBeLessThanOrEqual(Math.abs(w[i]));
          expect(weights[i] * w[i]).toBeGreaterThanOrEqual(0);
          if (!(forget[i] > Math.fround(Math.fround(alpha) * full[i])))
            expect(weights[i]).toBe(w[i]);
        }
      },
    ),
  );
});

test('a larger α selects a part of what a smaller one does, an infinite one nothing', () => {
  fc.assert(
    fc.property(entries, positive, positive, (rows, a, b) => {
      const { w, forget, full } = arrays(rows);
      const selectedAt = (alpha: number) => dampen(w, forget, full, { alpha, lambda: 1 }).selected;
      expect(selectedAt(Math.max(a, b))).toBeLessThanOrEqual(selectedAt(Math.min(a, b)));
      expect(selectedAt(Number.POSITIVE_INFINITY)).toBe(0);
    }),
  );
});

test('the inputs stay as they were', () => {
  fc.assert(
    fc.property(entries, (rows) => {
      const { w, forget, full } = arrays(rows);
      dampen(w, forget, full, { alpha: 1, lambda: 1 });
      expect({ w, forget, full }).toEqual(arrays(rows));
    }),
  );
});

test('wide importances are compared in float64', () => {
  const w = Float32Array.of(1);
  const forget = Float64Array.of(3 + 1e-12);
  const full = Float64Array.of(1);
  expect(dampen(w, forget, full, { alpha: 3, lambda: 1 }).selected).toBe(1);
  const narrow = Float32Array.from(forget);
  expect(dampen(w, narrow, Float32Array.from(full), { alpha: 3, lambda: 1 }).selected).toBe(0);
});

test('the cap holds where λ is above α', () => {
  const run = (cap?: number) =>
    dampen(Float32Array.of(-2), Float32Array.of(3), Float32Array.of(1), {
      alpha: 1,
      lambda: 6,
      cap,
    }).weights[0];
  expect(run()).toBe(-2);
  expect(run(0.5)).toBe(-1);
  expect(run(10)).toBe(-4);
});

test('importances of other lengths are a bug', () => {
  const options = { alpha: 1, lambda: 1 };
  const [two, three] = [new Float32Array(2), new Float32Array(3)];
  expect(() => dampen(two, three, three, options)).toThrow('3 importances of 2');
  expect(() => dampen(two, two, three, options)).toThrow('of 2 and of 3');
});
