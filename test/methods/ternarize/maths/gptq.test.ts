import { codeRows } from '../../../../src/methods/ternarize/maths/code-rows.js';
import type { Granularity } from '../../../../src/methods/ternarize/maths/codes.js';
import { gptqRows } from '../../../../src/methods/ternarize/maths/gptq.js';
import {
  factorHessian,
  type Hessian,
  prepareHessian,
} from '../../../../src/methods/ternarize/maths/hessian.js';
import { nearestCode } from '../../../../src/methods/ternarize/maths/quantizer.js';
import {
  makeQuantizer,
  type QuantizerName,
} from '../../../../src/methods/ternarize/maths/quantizers.js';
import { fitRows } from '../../../../src/methods/ternarize/maths/rows.js';
import { distance, naiveInverse } from '../../compress/maths/numbers.js';
import { codesFor, momentsOf, quadratic, randomInputs, randomLayer } from './support.js';

function hessianOf(cols: number, seed: number) {
  const hessian = prepareHessian('l', momentsOf(randomInputs(4 * cols, cols, seed), cols), {
    centred: true,
  });
  const factor = factorHessian(hessian);
  if (!factor) throw new Error('not positive definite');
  return { hessian, factor };
}

/** Upper U with H⁻¹ = Uᵀ·U, column by column. */
function inverseFactor({ full = new Float64Array(), cols }: Hessian): Float64Array {
  const a = naiveInverse(full);
  const u = new Float64Array(a.length);
  for (let i = 0; i < cols; i++) {
    for (let j = i; j < cols; j++) {
      let sum = a[i * cols + j];
      for (let k = 0; k < i; k++) sum -= u[k * cols + i] * u[k * cols + j];
      u[i * cols + j] = i === j ? Math.sqrt(sum) : sum / u[i * cols + i];
    }
  }
  return u;
}

/** One row as the paper writes it: subtract e·U[i, i:] after every column. */
function naiveRow(
  weights: Float32Array,
  u: Float64Array,
  name: QuantizerName,
  group: number,
  given?: number,
) {
  const w = Float64Array.from(weights);
  const n = w.length;
  const quantizer = makeQuantizer(name);
  const codes: number[] = [];
  const scales: number[] = [];
  for (let left = 0; left < n; left += group) {
    const right = Math.min(left + group, n);
    const fit = quantizer.fit(w.slice(left, right), new Int8Array(right - left));
    const scale = given ?? Math.fround(fit.scale);
    const offset = Math.fround(fit.offset);
    scales.push(scale);
    for (let i = left; i < right; i++) {
      const code =
        scale === 0 ? 0 : nearestCode((w[i] - offset) / scale, quantizer.low, quantizer.high);
      const error = (w[i] - scale * code - offset) / u[i * n + i];
      for (let j = i; j < n; j++) w[j] -= error * u[i * n + j];
      codes.push(code);
    }
  }
  return { codes, scales };
}

test.each<[QuantizerName, number, number]>([
  ['fit', 41, 8],
  ['absmean', 41, 16],
  ['asymmetric', 30, 10],
  ['four-level', 30, 7],
  ['int4', 41, 8],
  ['int8', 30, 10],
  ['fit', 30, 30],
  // More than a block in a group, after another group.
  ['fit', 300, 145],
])('%s, %i inputs in groups of %i: the same as subtracting rows of U', (name, cols, group) => {
  const layer = randomLayer(5, cols, cols + group);
  const { hessian, factor } = hessianOf(cols, group);
  const quantizer = makeQuantizer(name);
  const codes = codesFor(layer, { group }, quantizer.offsets);
  gptqRows(layer, codes, quantizer, factor);
  const u = inverseFactor(hessian);
  for (let r = 0; r < layer.rows; r++) {
    const row = layer.w.subarray(r * cols, (r + 1) * cols);
    const expected = naiveRow(row, u, name, group);
    expect([...codes.codes.subarray(r * cols, (r + 1) * cols)].map((x) => x + 0)).toEqual(
      expected.codes.map((x) => x + 0),
    );
    const scales = codes.scales.subarray(r * codes.groups, (r + 1) * codes.groups);
    expect(distance(scales, expected.scales)).toBeLessThan(1e-6);
  }
});

test('with one scale for the tensor it is kept', () => {
  const cols = 24;
  const layer = randomLayer(4, cols, 1);
  const { hessian, factor } = hessianOf(cols, 2);
  const codes = codesFor(layer, 'tensor');
  const quantizer = makeQuantizer('fit');
  fitRows(layer, codes, quantizer, hessian.diagonal);
  const scales = codes.scales.slice();
  gptqRows(layer, codes, quantizer, factor);
  expect(codes.scales).toEqual(scales);
  const { codes: expected } = naiveRow(
    layer.w.subarray(0, cols),
    inverseFactor(hessian),
    'fit',
    cols,
    scales[0],
  );
  expect(distance(codes.codes.subarray(0, cols), expected)).toBe(0);
});

test('where inputs are uncorrelated it is the plain fit', () => {
  const layer = randomLayer(3, 20, 3);
  const full = new Float64Array(400).map((_, k) => (k % 21 === 0 ? 4 : 0));
  const hessian = { cols: 20, full, diagonal: new Float64Array(20).fill(4) };
  const factor = factorHessian(hessian) ?? new Float64Array();
  const quantizer = makeQuantizer('fit');
  const plain = codesFor(layer, { group: 8 });
  const coded = codesFor(layer, { group: 8 });
  fitRows(layer, plain, quantizer);
  gptqRows(layer, coded, quantizer, factor);
  expect(coded).toEqual(plain);
});

test('each stage lowers the error at the output', () => {
  const cols = 96;
  const layer = randomLayer(40, cols, 4);
  const { hessian, factor } = hessianOf(cols, 5);
  for (const quantizer of ['fit', 'four-level', 'asymmetric', 'int4', 'int8'] as const) {
    const errors = (['fit', 'gptq', 'gptq-cd'] as const).map((method) => {
      const codes = codesFor(layer, { group: 32 }, makeQuantizer(quantizer).offsets);
      codeRows({ layer, quantizer, method, hessian, factor }, codes);
      return quadratic(layer, codes, hessian.full ?? new Float64Array());
    });
    expect(errors[1]).toBeLessThan(0.8 * errors[0]);
    expect(errors[2]).toBeLessThan(errors[1]);
  }
});

test('rows can be coded in any division, down to the last bit', () => {
  const cols = 50;
  const layer = randomLayer(37, cols, 6);
  const { hessian, factor } = hessianOf(cols, 7);
  for (const quantizer of ['fit', 'asymmetric', 'four-level'] as const) {
    const task = { layer, quantizer, method: 'gptq-cd', hessian, factor } as const;
    const granularity: Granularity = { group: 16 };
    const offsets = makeQuantizer(quantizer).offsets;
    const whole = codesFor(layer, granularity, offsets);
    const parts = codesFor(layer, granularity, offsets);
    codeRows(task, whole);
    for (const [from, to] of [
      [0, 1],
      [1, 7],
      [7, 36],
      [36, 37],
    ])
      codeRows(task, parts, { from, to });
    expect(parts).toEqual(whole);
  }
});

test('refuses what it cannot do', () => {
  const layer = randomLayer(3, 8, 8);
  const { factor } = hessianOf(8, 9);
  const codes = codesFor(layer, 'channel');
  expect(() => gptqRows(layer, codes, makeQuantizer('sherry'), factor)).toThrow('pattern');
  expect(() => codeRows({ layer, quantizer: 'fit', method: 'gptq' }, codes)).toThrow('Hessian');
  layer.w[20] = Number.NaN;
  expect(() => gptqRows(layer, codes, makeQuantizer('fit'), factor)).toThrow(
    expect.objectContaining({
      detail: expect.objectContaining({ where: 'layer, output 2, input 4' }),
    }),
  );
});
