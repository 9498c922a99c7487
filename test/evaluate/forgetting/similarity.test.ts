import fc from 'fast-check';
import {
  activationDistance,
  meanDivergence,
  tugOfWar,
  zeroRetrainForgetting,
} from '../../../src/evaluate/forgetting/similarity.js';
import { golden } from '../../methods/unlearn/golden-ssd.js';

const p = Float32Array.of(0.75, 0.25, 1, 0);
const q = Float32Array.of(0.25, 0.75, 0, 1);

test('activation distance is the mean L2 distance of rows', () => {
  expect(activationDistance(p, q, 2)).toBeCloseTo((Math.SQRT1_2 + Math.SQRT2) / 2, 6);
});

test('mean divergence is in nats, from the first to the second', () => {
  const a = Float32Array.of(0.5, 0.5);
  const b = Float32Array.of(0.9, 0.1);
  expect(meanDivergence(a, b, 2)).toBeCloseTo(Math.log(5 / 3), 6);
  expect(meanDivergence(b, a, 2)).toBeCloseTo(0.9 * Math.log(1.8) + 0.1 * Math.log(0.2), 6);
});

test('ZRF is 1 for equal models and 1 - ln 2 for disjoint ones', () => {
  expect(zeroRetrainForgetting(p, p, 2)).toBe(1);
  expect(zeroRetrainForgetting(Float32Array.of(1, 0), Float32Array.of(0, 1), 2)).toBeCloseTo(
    1 - Math.LN2,
    6,
  );
  // JS((3/4, 1/4), (1/4, 3/4)) = 3/4·ln(3/2) - 1/4·ln 2
  const js = 0.75 * Math.log(1.5) - 0.25 * Math.LN2;
  expect(zeroRetrainForgetting(p.subarray(0, 2), q.subarray(0, 2), 2)).toBeCloseTo(1 - js, 6);
});

const rows = fc.integer({ min: 2, max: 5 }).chain((classes) => {
  const scores = fc
    .array(fc.float({ min: -300, max: 300, noNaN: true }), {
      minLength: 3 * classes,
      maxLength: 3 * classes,
    })
    .map((values) => Float32Array.from(values));
  return fc.record({ classes: fc.constant(classes), a: scores, b: scores });
});

test('bounds and symmetry, whatever the logits', () => {
  fc.assert(
    fc.property(rows, ({ classes, a, b }) => {
      const distance = activationDistance(a, b, classes);
      expect(distance).toBeGreaterThanOrEqual(0);
      expect(distance).toBeLessThanOrEqual(Math.SQRT2 + 1e-9);
      expect(activationDistance(b, a, classes)).toBeCloseTo(distance, 12);
      expect(meanDivergence(a, b, classes)).toBeGreaterThanOrEqual(0);
      expect(meanDivergence(a, a, classes)).toBe(0);
      const score = zeroRetrainForgetting(a, b, classes);
      expect(score).toBeGreaterThanOrEqual(1 - Math.LN2 - 1e-9);
      expect(score).toBeLessThanOrEqual(1);
      expect(zeroRetrainForgetting(b, a, classes)).toBeCloseTo(score, 12);
    }),
  );
});

test('a row of logits that looks like a distribution is not taken for one', () => {
  const logits = Float32Array.of(1, 0, 5, 0);
  const expected = Float32Array.from(logits, (z, i) => 1 / (1 + Math.exp(logits[i ^ 1] - z)));
  expect(activationDistance(logits, expected, 2)).toBeCloseTo(0, 6);
});

test('adding a number to all logits of a row changes nothing', () => {
  fc.assert(
    fc.property(rows, ({ classes, a, b }) => {
      const whole = a.map(Math.trunc);
      // Not all rows of 0 and 1, which would be probabilities.
      whole[0] = -1;
      const moved = whole.map((value) => value + 512);
      expect(activationDistance(moved, b, classes)).toBeCloseTo(
        activationDistance(whole, b, classes),
        12,
      );
    }),
  );
});

test('NaN is not hidden', () => {
  const broken = Float32Array.of(Number.NaN, 0, 1, 0);
  for (const measure of [activationDistance, meanDivergence, zeroRetrainForgetting])
    expect(measure(broken, q, 2)).toBeNaN();
});

test('rows of other counts are a bug', () => {
  expect(() => activationDistance(p, q.subarray(2), 2)).toThrow('4 scores and 2');
  expect(() => meanDivergence(p, q, 3)).toThrow('rows of 3');
});

describe('tug of war', () => {
  const { tasks } = golden.baselines_cnn;

  test.each(Object.keys(tasks.class3))('class 3, %s', (method) => {
    const accuracies = (name: string) => {
      const measured = tasks.class3[name];
      return {
        forget: measured.forget_train_acc,
        retain: measured.retain_train_acc,
        test: measured.test_retain_class_acc!,
      };
    };
    const score = tugOfWar(accuracies(method), accuracies('retrain'));
    expect(score).toBeCloseTo(tasks.class3[method].tow, 4);
  });

  test.each(Object.keys(tasks.random100))('random samples, %s', (method) => {
    const accuracies = (name: string) => {
      const measured = tasks.random100[name];
      return {
        forget: measured.forget_train_acc,
        retain: measured.retain_train_acc,
        test: measured.test_acc,
      };
    };
    const score = tugOfWar(accuracies(method), accuracies('retrain'));
    expect(score).toBeCloseTo(tasks.random100[method].tow, 4);
  });
});
