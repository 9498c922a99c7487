import { codeRows } from '../../../../src/methods/ternarize/maths/code-rows.js';
import { HeldOut } from '../../../../src/methods/ternarize/maths/held-out.js';
import { factorHessian, prepareHessian } from '../../../../src/methods/ternarize/maths/hessian.js';
import { codesFor, decoded, momentsOf, quadratic, randomInputs, randomLayer } from './support.js';

/** a·bᵀ, the plain way. */
async function product(a: Float32Array, b: Float32Array, k: number): Promise<Float32Array> {
  const [m, n] = [a.length / k, b.length / k];
  const c = new Float32Array(m * n);
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++)
      for (let l = 0; l < k; l++) c[i * n + j] += a[i * k + l] * b[j * k + l];
  return c;
}

const cols = 24;
const layer = randomLayer(10, cols, 3);
const x = Float32Array.from(randomInputs(40, cols, 5));
const codes = codesFor(layer, { group: 8 });
codeRows({ layer, quantizer: 'fit', method: 'fit' }, codes);

test('the share of the output that is lost, next to brute force', async () => {
  const bias = Float64Array.from({ length: layer.rows }, (_, r) => r / 7 - 0.5);
  const coded = decoded(codes);
  let [error, power] = [0, 0];
  for (let t = 0; t < 40; t++)
    for (let r = 0; r < layer.rows; r++) {
      let [lost, whole] = [-bias[r], 0];
      for (let i = 0; i < cols; i++) {
        lost += x[t * cols + i] * (layer.w[r * cols + i] - coded[r * cols + i]);
        whole += x[t * cols + i] * layer.w[r * cols + i];
      }
      error += lost * lost;
      power += whole * whole;
    }
  const heldOut = await HeldOut.of(layer, x, product);
  expect(heldOut.power / power).toBeCloseTo(1, 4);
  expect((await heldOut.error(codes, bias)) / (error / power)).toBeCloseTo(1, 4);
});

test('in bands of outputs, none of them large, it is the same', async () => {
  const n = 2 ** 19;
  const wide = randomLayer(10, 2, 7);
  // Not centred: otherwise it would not show which output a bias is taken from.
  const inputs = Float32Array.from({ length: 2 * n }, (_, k) => ((k * 37) % 101) / 50);
  const made = codesFor(wide, 'channel');
  codeRows({ layer: wide, quantizer: 'fit', method: 'fit' }, made);
  const bias = Float64Array.from({ length: wide.rows }, (_, r) => r / 7 - 0.5);
  const bands: number[] = [];
  let largest = 0;
  const watched = async (a: Float32Array, b: Float32Array, k: number) => {
    const c = await product(a, b, k);
    bands.push(b.length / k);
    largest = Math.max(largest, b.byteLength, c.byteLength);
    return c;
  };
  const heldOut = await HeldOut.of(wide, inputs, watched);
  const relative = await heldOut.error(made, bias);
  expect(bands).toEqual([4, 4, 2, 4, 4, 2]);
  expect(largest).toBeLessThanOrEqual(2 ** 24);
  const coded = decoded(made);
  let [error, power] = [0, 0];
  for (let t = 0; t < n; t++)
    for (let r = 0; r < wide.rows; r++) {
      const [x0, x1, k] = [inputs[2 * t], inputs[2 * t + 1], 2 * r];
      const whole = x0 * wide.w[k] + x1 * wide.w[k + 1];
      error += (whole - x0 * coded[k] - x1 * coded[k + 1] - bias[r]) ** 2;
      power += whole ** 2;
    }
  expect(relative / (error / power)).toBeCloseTo(1, 4);
  expect(heldOut.power / power).toBeCloseTo(1, 4);
  // The whole is not computed again for other codes.
  await heldOut.error(made);
  expect(bands).toHaveLength(9);
});

test('nothing lost of nothing is 0, and NaN is the worst', async () => {
  const silent = await HeldOut.of(layer, new Float32Array(2 * cols), product);
  expect(await silent.error(codes)).toBe(0);
  const broken = await HeldOut.of(layer, new Float32Array(2 * cols).fill(Number.NaN), product);
  expect(await broken.error(codes)).toBe(Number.POSITIVE_INFINITY);
});

test('GPTQ and descent lower the quadratic form of int4, too, and matrices may be shared', () => {
  const inputs = randomInputs(400, cols, 6);
  const moments = momentsOf(inputs, cols);
  const options = { centred: true, Memory: SharedArrayBuffer };
  const hessian = prepareHessian(
    'layer',
    { ...moments, second: Float32Array.from(moments.second) },
    options,
  );
  const factor = factorHessian(hessian, options);
  expect(hessian.full?.buffer).toBeInstanceOf(SharedArrayBuffer);
  expect(factor?.buffer).toBeInstanceOf(SharedArrayBuffer);
  const errors = (['fit', 'gptq', 'gptq-cd'] as const).map((method) => {
    const made = codesFor(layer, { group: 8 });
    codeRows({ layer, quantizer: 'int4', method, hessian, factor }, made);
    expect(Math.max(...made.codes.map(Math.abs))).toBeLessThanOrEqual(7);
    return quadratic(layer, made, hessian.full!);
  });
  expect(errors[1]).toBeLessThan(errors[0]);
  expect(errors[2]).toBeLessThan(errors[1]);
});
