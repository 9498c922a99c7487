import fc from 'fast-check';
import type { Levels } from '../../../../src/methods/ternarize/maths/quantizer.js';
import { nearestCode } from '../../../../src/methods/ternarize/maths/quantizer.js';
import {
  makeQuantizer,
  type QuantizerName,
  quantizerNames,
} from '../../../../src/methods/ternarize/maths/quantizers.js';
import { normals } from '../../sparsify/random.js';

interface Fitted extends Levels {
  codes: Int8Array;
  /** Σ dᵢ·(wᵢ - ŵᵢ)² */
  error: number;
}

function fitted(name: QuantizerName, w: ArrayLike<number>, d?: ArrayLike<number>): Fitted {
  const values = Float64Array.from(w);
  const importance = d && Float64Array.from(d);
  const codes = new Int8Array(values.length).fill(77);
  const levels = makeQuantizer(name).fit(values, codes, importance);
  return { ...levels, codes, error: squaredError(values, codes, levels, importance) };
}

function squaredError(
  w: Float64Array,
  codes: Int8Array,
  { scale, offset }: Levels,
  d?: Float64Array,
): number {
  return w.reduce((sum, x, i) => sum + (d ? d[i] : 1) * (x - scale * codes[i] - offset) ** 2, 0);
}

/** The least error over every assignment of `alphabet` to the weights, each with its best scale. */
function bruteForce(w: readonly number[], alphabet: readonly number[], d?: readonly number[]) {
  let least = Infinity;
  for (let k = 0; k < alphabet.length ** w.length; k++) {
    let s = 0;
    let q = 0;
    let power = 0;
    for (let i = 0, rest = k; i < w.length; i++, rest = Math.floor(rest / alphabet.length)) {
      const code = alphabet[rest % alphabet.length];
      const importance = d ? d[i] : 1;
      s += importance * w[i] * code;
      q += importance * code * code;
      power += importance * w[i] * w[i];
    }
    least = Math.min(least, power - (q > 0 ? (s * s) / q : 0));
  }
  return least;
}

const weight = fc.oneof(
  fc.integer({ min: -4, max: 4 }),
  fc.double({ min: -10, max: 10, noNaN: true }),
);
const group = fc.array(weight, { minLength: 1, maxLength: 6 });
const weighted = fc.array(
  fc.tuple(weight, fc.oneof(fc.constant(0), fc.double({ min: 0.01, max: 9, noNaN: true }))),
  {
    minLength: 1,
    maxLength: 6,
  },
);

const cases: [QuantizerName, number[]][] = [
  ['fit', [-1, 0, 1]],
  ['four-level', [-2, -1, 0, 1]],
];

test.each(cases)('%s is the best of all codes', (name, alphabet) => {
  fc.assert(
    fc.property(group, (w) => {
      const { error } = fitted(name, w);
      expect(error).toBeLessThanOrEqual(bruteForce(w, alphabet) + 1e-9);
    }),
    { numRuns: 300 },
  );
});

test.each(cases)('%s is the best of all codes under importance', (name, alphabet) => {
  fc.assert(
    fc.property(weighted, (pairs) => {
      const w = pairs.map(([x]) => x);
      const d = pairs.map(([, y]) => y);
      expect(fitted(name, w, d).error).toBeLessThanOrEqual(bruteForce(w, alphabet, d) + 1e-9);
    }),
    { numRuns: 300 },
  );
});

test('in large groups the fit is the best over all thresholds', () => {
  const next = normals(3);
  for (let repeat = 0; repeat < 20; repeat++) {
    const w = Float64Array.from({ length: 128 }, next);
    const least = Math.min(
      ...Array.from(w, (threshold) => {
        const codes = Int8Array.from(w, (x) =>
          Math.abs(x) >= Math.abs(threshold) ? Math.sign(x) : 0,
        );
        const kept = w.filter((_, i) => codes[i] !== 0).map(Math.abs);
        const scale = kept.reduce((sum, x) => sum + x, 0) / kept.length;
        return squaredError(w, codes, { scale, offset: 0 });
      }),
    );
    const { error, scale, codes } = fitted('fit', w);
    expect(error).toBeCloseTo(least, 9);
    w.forEach((x, i) => {
      expect(codes[i]).toBe(Math.abs(x) >= scale / 2 ? Math.sign(x) : 0);
    });
  }
});

test('no other ternary quantizer without an offset has a smaller error', () => {
  fc.assert(
    fc.property(fc.array(weight, { minLength: 1, maxLength: 140 }), (w) => {
      const errors = Object.fromEntries(
        quantizerNames.map((name) => [name, fitted(name, w).error]),
      );
      const slack = 1e-9 * (1 + errors.fit);
      const others = ['absmean', 'absmean-scaled', 'absmedian', 'twn-0.7', 'twn-0.75', 'sherry'];
      for (const name of others) expect(errors.fit).toBeLessThanOrEqual(errors[name] + slack);
      expect(errors['four-level']).toBeLessThanOrEqual(errors.fit + slack);
      expect(errors['absmean-scaled']).toBeLessThanOrEqual(errors.absmean + slack);
    }),
  );
});

test('on Gaussian weights: errors in the order fit, TWN, absmean in groups of 128', () => {
  const next = normals(8);
  let asymmetric = 0;
  let symmetric = 0;
  for (let repeat = 0; repeat < 50; repeat++) {
    const w = Float64Array.from({ length: 128 }, next);
    const error = (name: QuantizerName) => fitted(name, w).error;
    const slack = 1 + 1e-12;
    expect(error('fit')).toBeLessThanOrEqual(slack * error('twn-0.75'));
    expect(error('fit')).toBeLessThanOrEqual(slack * error('twn-0.7'));
    expect(error('twn-0.7')).toBeLessThan(error('absmean'));
    asymmetric += error('asymmetric');
    symmetric += error('fit');
  }
  // Not always: it may end in a local optimum.
  expect(asymmetric).toBeLessThan(symmetric);
});

test.each<[QuantizerName, number, number]>([
  ['absmean', 0.263, 0.31],
  ['absmean-scaled', 0.213, 0.31],
  ['twn-0.7', 0.192, 0.42],
  ['twn-0.75', 0.19, 0.45],
  ['fit', 0.19, 0.46],
  ['sherry', 0.285, 0.25],
  ['four-level', 0.15, Number.NaN],
])('%s leaves %f of the variance of Gaussian weights', (name, expected, zeros) => {
  const next = normals(5);
  const w = Float64Array.from({ length: 100_000 }, next);
  const { error, codes } = fitted(name, w);
  const power = w.reduce((sum, x) => sum + x * x, 0);
  expect(Math.abs(error / power - expected)).toBeLessThan(0.003);
  const zeroFraction = codes.filter((code) => code === 0).length / w.length;
  if (!Number.isNaN(zeros)) expect(Math.abs(zeroFraction - zeros)).toBeLessThan(0.01);
});

test('formulas on a group that can be checked by hand', () => {
  const w = [4, -2, 1, 0, -0.5, 0.5, 3, -1];
  // mean |w| = 1.5, sorted |w| 4 3 2 1 1 .5 .5 0
  expect(fitted('absmean', w)).toMatchObject({
    scale: 1.5,
    codes: Int8Array.of(1, -1, 1, 0, 0, 0, 1, -1),
  });
  expect(fitted('absmean-scaled', w)).toMatchObject({ scale: 11 / 5 });
  expect(fitted('absmedian', w)).toMatchObject({
    scale: 1,
    codes: Int8Array.of(1, -1, 1, 0, -1, 1, 1, -1),
  });
  expect(fitted('twn-0.7', w)).toMatchObject({
    scale: 3,
    codes: Int8Array.of(1, -1, 0, 0, 0, 0, 1, 0),
  });
  // S²/k: 16, 24.5, 27, 25, 24.2
  expect(fitted('fit', w)).toMatchObject({
    scale: 3,
    codes: Int8Array.of(1, -1, 0, 0, 0, 0, 1, 0),
  });
  expect(fitted('sherry', w)).toMatchObject({
    scale: 11.5 / 6,
    codes: Int8Array.of(1, -1, 1, 0, 0, 1, 1, -1),
  });
});

test('ties go away from zero; Sherry drops the lower index of equals', () => {
  expect([0.5, -0.5, 0.49, -1.5, -1.4, 9, -9].map((x) => nearestCode(x, -2, 1))).toEqual([
    1, -1, 0, -2, -1, 1, -2,
  ]);
  expect(nearestCode(-9, -1, 1)).toBe(-1);
  // Mean 1, threshold 0.5: exactly reached.
  expect(fitted('absmean', [0.5, -0.5, 2, 1]).codes).toEqual(Int8Array.of(1, -1, 1, 1));
  expect(fitted('sherry', [1, 1, -1, 1, 2, -2]).codes).toEqual(Int8Array.of(0, 1, -1, 1, 1, -1));
});

test('the four levels take a negative scale when the positive tail is the longer one', () => {
  const w = [-1, 2, 1, 0];
  expect(fitted('four-level', w)).toMatchObject({
    scale: -1,
    error: 0,
    codes: Int8Array.of(1, -2, -1, 0),
  });
  expect(
    fitted(
      'four-level',
      w.map((x) => -x),
    ),
  ).toMatchObject({ scale: 1, error: 0 });
});

test('the asymmetric fit finds levels that are there, and is never worse than its start', () => {
  const w = [3.5, 1.5, -0.5, 3.5, 1.5, -0.5];
  const found = fitted('asymmetric', w);
  expect(found.error).toBeLessThan(1e-20);
  expect(found.scale).toBeCloseTo(2, 12);
  expect(found.offset).toBeCloseTo(1.5, 12);
  fc.assert(
    fc.property(fc.array(weight, { minLength: 1, maxLength: 40 }), (values) => {
      const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
      const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0);
      expect(fitted('asymmetric', values).error).toBeLessThanOrEqual(variance + 1e-9);
    }),
  );
  expect(fitted('asymmetric', [7, 7, 7])).toMatchObject({ scale: 0, offset: 7, error: 0 });
});

test.each(quantizerNames)('%s: zeros, denormals, one weight, a constant group', (name) => {
  const zeros = fitted(name, new Float64Array(9));
  expect(zeros).toMatchObject({ scale: 0, offset: 0, codes: new Int8Array(9) });
  const tiny = fitted(name, [1e-35, -1e-35, 1e-36, 0]);
  expect(tiny).toMatchObject({ scale: 0, codes: new Int8Array(4) });
  expect(fitted(name, [-2.5]).error).toBe(0);
  // Sherry must drop one.
  expect(fitted(name, new Float64Array(12).fill(-0.25)).error).toBe(name === 'sherry' ? 3 / 16 : 0);
  expect(fitted(name, [-0]).scale).toBe(0);
});

test.each(quantizerNames)('%s: no weights, or none that matters', (name) => {
  expect(fitted(name, [])).toMatchObject({ scale: 0, offset: 0 });
  expect(fitted(name, [1, 2], [0, 0]).error).toBe(0);
});

test.each(quantizerNames)('%s: comes to an end with NaN and infinity too', (name) => {
  for (const bad of [Number.NaN, Infinity])
    expect(fitted(name, [-1, bad, 2, -3, bad])).toBeDefined();
});

test('int4 and int8 round to the nearest of symmetric codes', () => {
  expect(fitted('int4', [7, -3.4, 0.5, -0.5, 0])).toMatchObject({
    scale: 1,
    codes: Int8Array.of(7, -3, 1, -1, 0),
  });
  expect(fitted('int8', [-254, 2, 3]).codes).toEqual(Int8Array.of(-127, 1, 2));
  expect(fitted('int4', [0, 0]).scale).toBe(0);
});
