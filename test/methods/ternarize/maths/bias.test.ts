import { deadBias, fullBias, lambdaBias } from '../../../../src/methods/ternarize/maths/bias.js';
import { codeRows } from '../../../../src/methods/ternarize/maths/code-rows.js';
import type { LayerCodes, LayerWeights } from '../../../../src/methods/ternarize/maths/codes.js';
import {
  relativeWeightError,
  zeroFraction,
} from '../../../../src/methods/ternarize/maths/error.js';
import { factorHessian, prepareHessian } from '../../../../src/methods/ternarize/maths/hessian.js';
import { distance } from '../../compress/maths/numbers.js';
import { codesFor, decoded, layerOf, momentsOf, randomInputs, randomLayer } from './support.js';

const cols = 40;
const tokens = 200;
const layer = randomLayer(37, cols, 1);
const x = randomInputs(tokens, cols, 2).map((value) => Math.max(0, value));
const moments = momentsOf(x, cols);

function coded(method: 'fit' | 'gptq-cd', centred: boolean): LayerCodes {
  const hessian = prepareHessian('l', moments, { centred });
  const factor = factorHessian(hessian);
  const codes = codesFor(layer, { group: 16 });
  codeRows({ layer, quantizer: 'fit', method, hessian, factor }, codes);
  return codes;
}

/** [tokens, rows] (W - Ŵ)·x - b */
function errors({ w, rows }: LayerWeights, codes: LayerCodes, bias?: Float64Array) {
  const lost = decoded(codes).map((value, k) => w[k] - value);
  return Float64Array.from({ length: tokens * rows }, (_, k) => {
    const t = Math.floor(k / rows);
    let sum = bias ? -bias[k % rows] : 0;
    for (let i = 0; i < cols; i++) sum += lost[(k % rows) * cols + i] * x[t * cols + i];
    return sum;
  });
}

const meanSquare = (values: Float64Array) =>
  values.reduce((sum, value) => sum + value * value, 0) / tokens;

test('the full bias makes the mean error of every output zero', () => {
  const codes = coded('fit', true);
  const after = errors(layer, codes, fullBias(layer, codes, moments.mean));
  const before = errors(layer, codes);
  for (let r = 0; r < layer.rows; r++) {
    const mean = (values: Float64Array) =>
      values.filter((_, k) => k % layer.rows === r).reduce((sum, value) => sum + value, 0) / tokens;
    expect(Math.abs(mean(after))).toBeLessThan(1e-9);
    expect(Math.abs(mean(before))).toBeGreaterThan(1e-6);
  }
});

test('codes for the covariance, with the bias, beat codes for C without it', () => {
  const centred = coded('gptq-cd', true);
  const plain = coded('gptq-cd', false);
  const lost = (codes: LayerCodes, bias?: Float64Array) => meanSquare(errors(layer, codes, bias));
  const withBias = lost(centred, fullBias(layer, centred, moments.mean));
  expect(withBias).toBeLessThan(lost(plain));
  expect(withBias).toBeLessThan(lost(plain, fullBias(layer, plain, moments.mean)));
});

test('the biases are what their formulas say', () => {
  const tiny = layerOf(1, [4, -1, 0.5, -3]);
  const codes = codesFor(tiny, 'channel');
  codes.codes.set([1, 0, 0, -1]);
  codes.scales.set([3.5]);
  const mean = Float64Array.of(1, 2, 4, 8);
  expect(fullBias(tiny, codes, mean)).toEqual(Float64Array.of(0.5 - 2 + 2 + 4));
  expect(deadBias(tiny, codes, mean)).toEqual(Float64Array.of(-2 + 2));
  expect(lambdaBias(tiny, codes, 0.5)).toEqual(Float64Array.of(-0.25));
  expect(lambdaBias(tiny, codes)[0]).toBeCloseTo(-0.0005, 12);
});

test('the error of the weights, and the zeros', () => {
  const codes = coded('fit', true);
  const nothing = codesFor(layer, 'channel');
  expect(relativeWeightError(layer, nothing)).toBe(1);
  expect(zeroFraction(nothing)).toBe(1);
  const lost = decoded(codes).map((value, k) => layer.w[k] - value);
  const squares = (values: ArrayLike<number>) =>
    Array.from(values, (value) => value * value).reduce((sum, value) => sum + value, 0);
  expect(relativeWeightError(layer, codes)).toBeCloseTo(squares(lost) / squares(layer.w), 12);
  const zero = layerOf(2, new Array(8).fill(0));
  expect(relativeWeightError(zero, codesFor(zero, 'channel'))).toBe(0);
  expect(distance(decoded(codesFor(zero, 'channel')), new Float64Array(8))).toBe(0);
});
