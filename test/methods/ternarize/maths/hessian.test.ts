import { factorHessian, prepareHessian } from '../../../../src/methods/ternarize/maths/hessian.js';
import { momentsOf, randomInputs } from './support.js';

const cols = 6;
const moments = momentsOf(randomInputs(50, cols, 1), cols);

test('H is C, or the covariance, with a hundredth of the mean diagonal on its diagonal', () => {
  const plain = prepareHessian('l', moments, { centred: false });
  const trace = moments.squares.reduce((sum, x) => sum + x, 0);
  plain.full?.forEach((value, k) => {
    const added = k % (cols + 1) === 0 ? (0.01 * trace) / cols : 0;
    expect(value).toBeCloseTo(moments.second[k] + added, 12);
  });
  const { full = new Float64Array() } = prepareHessian('l', moments, { centred: true, damping: 0 });
  full.forEach((value, k) => {
    const product = moments.mean[Math.floor(k / cols)] * moments.mean[k % cols];
    expect(value).toBeCloseTo(moments.second[k] - product, 12);
  });
  expect(moments.second[0]).toBe(moments.squares[0]);
});

test('with few tokens, many inputs or no matrix only the diagonal is used', () => {
  const options = { centred: true };
  const reason = (changed: object, more: object = {}) => {
    const h = prepareHessian('l', { ...moments, ...changed }, { ...options, ...more });
    expect(h.full === undefined).toBe(h.reason !== undefined);
    return h.reason;
  };
  expect(reason({})).toBeUndefined();
  expect(reason({ tokens: 2 * cols })).toBeUndefined();
  expect(reason({ tokens: 2 * cols - 1 })).toBe('few tokens');
  expect(reason({}, { maxCols: cols - 1 })).toBe('many inputs');
  expect(reason({ second: undefined })).toBe('not gathered');
  const diagonal = prepareHessian('l', { ...moments, second: undefined }, options).diagonal;
  const whole = prepareHessian('l', moments, options).diagonal;
  diagonal.forEach((value, i) => {
    expect(value).toBeCloseTo(whole[i], 12);
  });
});

test('the factor has R above and Rᵀ below the diagonal', () => {
  const h = prepareHessian('l', moments, { centred: true });
  const r = factorHessian(h) ?? new Float64Array();
  for (let i = 0; i < cols; i++) {
    for (let j = 0; j < cols; j++) {
      expect(r[i * cols + j]).toBe(r[j * cols + i]);
      let sum = 0;
      for (let k = Math.max(i, j); k < cols; k++) sum += r[i * cols + k] * r[j * cols + k];
      expect(sum).toBeCloseTo(h.full?.[i * cols + j] ?? Number.NaN, 10);
    }
  }
});

test('inputs that never vary, some or all, leave a positive definite H', () => {
  const x = randomInputs(50, cols, 2).map((value, k) => (k % cols === 2 ? 0 : value));
  const dead = prepareHessian('l', momentsOf(x, cols), { centred: true });
  expect(dead.diagonal[2]).toBeGreaterThan(0);
  expect(factorHessian(dead)).toBeDefined();
  const constant = momentsOf(new Float64Array(50 * cols), cols);
  const identity = prepareHessian('l', constant, { centred: true });
  expect(identity.diagonal).toEqual(new Float64Array(cols).fill(1));
  expect(factorHessian(identity)).toEqual(identity.full);
});

test('more damping where rounding has made H indefinite; undefined where nothing helps', () => {
  const indefinite = (off: number) => {
    const full = Float64Array.of(1, off, off, 1);
    return { cols: 2, full, diagonal: Float64Array.of(1, 1) };
  };
  expect(factorHessian(indefinite(1.05))?.[3]).toBeCloseTo(Math.sqrt(1.1), 12);
  expect(factorHessian(indefinite(1.5))?.[3]).toBeCloseTo(Math.sqrt(2), 12);
  expect(factorHessian(indefinite(3))).toBeUndefined();
  expect(factorHessian({ cols: 2, diagonal: Float64Array.of(1, 1) })).toBeUndefined();
});

test('moments that are not numbers are refused with the layer', () => {
  const mean = moments.mean.slice();
  mean[1] = Number.NaN;
  expect(() => prepareHessian('block.1', { ...moments, mean }, { centred: true })).toThrow(
    expect.objectContaining({ exitCode: 6, detail: expect.objectContaining({ where: 'block.1' }) }),
  );
});
