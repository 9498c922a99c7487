import fc from 'fast-check';
import { uniform } from '../../../../src/data/sampling.js';
import { copyCodes, type Granularity } from '../../../../src/methods/ternarize/maths/codes.js';
import { type Hessian, prepareHessian } from '../../../../src/methods/ternarize/maths/hessian.js';
import {
  makeQuantizer,
  type QuantizerName,
} from '../../../../src/methods/ternarize/maths/quantizers.js';
import { refineRows } from '../../../../src/methods/ternarize/maths/refine.js';
import { fitRows } from '../../../../src/methods/ternarize/maths/rows.js';
import { codesFor, layerOf, momentsOf, quadratic, randomInputs, randomLayer } from './support.js';

const hessianOf = (cols: number, seed: number): Hessian & { full: Float64Array } => {
  const moments = momentsOf(randomInputs(3 * cols, cols, seed), cols);
  const { full = new Float64Array(), ...rest } = prepareHessian('l', moments, { centred: true });
  return { ...rest, full };
};

const identity = (cols: number): Hessian => ({
  cols,
  full: new Float64Array(cols * cols).map((_, k) => (k % (cols + 1) === 0 ? 1 : 0)),
  diagonal: new Float64Array(cols).fill(1),
});

test('neither refits nor descents raise the quadratic form, from any codes', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 1, max: 24 }),
      fc.constantFrom<QuantizerName>('fit', 'asymmetric', 'four-level', 'int4', 'int8'),
      fc.oneof(
        fc.constantFrom<Granularity>('tensor', 'channel'),
        fc.record({ group: fc.integer({ min: 1, max: 12 }) }),
      ),
      fc.integer({ min: 0, max: 1000 }),
      (rows, cols, name, granularity, seed) => {
        const layer = randomLayer(rows, cols, seed);
        const hessian = hessianOf(cols, seed + 1);
        const quantizer = makeQuantizer(name);
        const codes = codesFor(layer, granularity, quantizer.offsets);
        const next = uniform(seed);
        const span = quantizer.high - quantizer.low + 1;
        codes.codes.forEach((_, k) => {
          codes.codes[k] = quantizer.low + Math.floor(next() * span);
        });
        const scale = next() - 0.3;
        codes.scales.forEach((_, k) => {
          codes.scales[k] = codes.shared ? scale : next() - 0.3;
        });
        let before = quadratic(layer, codes, hessian.full);
        for (const sweeps of [0, 1, 3]) {
          // Without rounds there is only the last refit.
          const rounds = Math.min(1, sweeps);
          refineRows(layer, codes, quantizer, hessian, { rounds, sweeps });
          const after = quadratic(layer, codes, hessian.full);
          expect(after).toBeLessThanOrEqual(before * (1 + 1e-9) + 1e-12);
          before = after;
        }
        const { low, high } = quantizer;
        expect(codes.codes.every((code) => low <= code && code <= high)).toBe(true);
        if (low === -high) expect(codes.scales.every((s) => s >= 0)).toBe(true);
        if (codes.shared) expect(new Set(codes.scales).size).toBe(1);
      },
    ),
    { numRuns: 200 },
  );
});

test('after it no single code can be changed for the better', () => {
  const layer = randomLayer(4, 20, 1);
  const hessian = hessianOf(20, 2);
  const quantizer = makeQuantizer('fit');
  const codes = codesFor(layer, { group: 5 });
  fitRows(layer, codes, quantizer);
  refineRows(layer, codes, quantizer, hessian, { rounds: 50, sweeps: 50 });
  const least = quadratic(layer, codes, hessian.full);
  for (let k = 0; k < codes.codes.length; k++) {
    for (const code of [-1, 0, 1]) {
      const changed = copyCodes(codes);
      changed.codes[k] = code;
      expect(quadratic(layer, changed, hessian.full)).toBeGreaterThanOrEqual(least * (1 - 1e-6));
    }
  }
});

test('a refit solves the normal equations of the scales', () => {
  const layer = randomLayer(2, 18, 3);
  const hessian = hessianOf(18, 4);
  const quantizer = makeQuantizer('fit');
  const codes = codesFor(layer, { group: 6 });
  fitRows(layer, codes, quantizer);
  refineRows(layer, codes, quantizer, hessian, { rounds: 3, sweeps: 0 });
  const least = quadratic(layer, codes, hessian.full);
  for (let g = 0; g < codes.scales.length; g++) {
    for (const factor of [0.999, 1.001]) {
      const changed = copyCodes(codes);
      changed.scales[g] *= factor;
      expect(quadratic(layer, changed, hessian.full)).toBeGreaterThan(least);
    }
  }
});

test('a negative scale flips the codes, a zero one drops them', () => {
  const layer = layerOf(1, [1, -1, 1, 1, 0, 0]);
  const codes = codesFor(layer, { group: 2 });
  codes.codes.set([-1, 1, 1, -1, 1, 1]);
  codes.scales.set([2, 2, 2]);
  refineRows(layer, codes, makeQuantizer('fit'), identity(6), { rounds: 3, sweeps: 0 });
  expect(codes.codes.subarray(0, 2)).toEqual(Int8Array.of(1, -1));
  expect(codes.scales[0]).toBeCloseTo(1, 5);
  // [1, 1] against codes [1, -1], and [0, 0]: the best scale is 0, to rounding.
  expect(codes.scales[1]).toBeCloseTo(0, 9);
  expect(codes.scales[2]).toBeCloseTo(0, 9);
});

test('int4 flips too, four levels cannot', () => {
  const layer = layerOf(1, [7, -2, 3, -1]);
  const refined = (name: QuantizerName, given: number[]) => {
    const codes = codesFor(layer, 'channel');
    codes.codes.set(given);
    codes.scales.fill(2);
    refineRows(layer, codes, makeQuantizer(name), identity(4), { rounds: 1, sweeps: 0 });
    return codes;
  };
  const int4 = refined('int4', [-7, 2, -3, 1]);
  expect(int4.codes).toEqual(Int8Array.of(7, -2, 3, -1));
  expect(int4.scales[0]).toBeCloseTo(1, 5);
  const four = refined('four-level', [-2, 1, -1, 0]);
  expect(four.codes).toEqual(Int8Array.of(-2, 1, -1, 0));
  expect(four.scales[0]).toBeLessThan(0);
});

test('a zero scale, and codes that are all 0, stay that way', () => {
  const layer = randomLayer(1, 8, 5);
  const codes = codesFor(layer, { group: 4 });
  codes.codes.set([0, 0, 0, 0, 1, -1, 0, 1]);
  codes.scales.set([0, 1]);
  refineRows(layer, codes, makeQuantizer('fit'), hessianOf(8, 6));
  expect(codes.codes.subarray(0, 4)).toEqual(new Int8Array(4));
  expect(codes.scales[0]).toBe(0);
  const zero = codesFor(layer, 'tensor');
  refineRows(layer, zero, makeQuantizer('fit'), hessianOf(8, 6));
  expect(zero).toEqual(codesFor(layer, 'tensor'));
});

test('needs all of H, free codes, and all rows that share a scale', () => {
  const layer = randomLayer(2, 8, 7);
  const hessian = hessianOf(8, 8);
  const codes = codesFor(layer, 'tensor');
  const fit = makeQuantizer('fit');
  expect(() => refineRows(layer, codes, makeQuantizer('sherry'), hessian)).toThrow('pattern');
  expect(() => refineRows(layer, codes, fit, { ...hessian, full: undefined })).toThrow('diagonal');
  expect(() => refineRows(layer, codes, fit, hessian, {}, { from: 0, to: 1 })).toThrow('all rows');
});
