import { corruptions, meanCorruptionError } from '../../../src/evaluate/merging/corruption.js';
import { Ensemble } from '../../../src/evaluate/merging/ensemble.js';
import type { Feeds } from '../../../src/runtime/session.js';

const names = ['clean', 'noise@1', 'noise@3', 'blur@1'];

test('sets of one corruption go together, and clean is none', () => {
  expect(corruptions(names)).toEqual({
    clean: 0,
    all: [
      { name: 'noise', sets: [1, 2] },
      { name: 'blur', sets: [3] },
    ],
  });
  expect(corruptions(['digits']).clean).toBeUndefined();
});

test('mCE: errors are summed over severities, divided, and then averaged', () => {
  const reference = [0.1, 0.2, 0.4, 0.5];
  const { mce, relative } = meanCorruptionError(names, [0.2, 0.1, 0.5, 0.25], reference);
  expect(mce).toBeCloseTo((100 * (0.6 / 0.6 + 0.25 / 0.5)) / 2, 9);
  expect(relative).toBeCloseTo((100 * (0.2 / 0.4 + 0.05 / 0.4)) / 2, 9);
  expect(meanCorruptionError(names, reference, reference)).toEqual({ mce: 100, relative: 100 });
  expect(meanCorruptionError(names.slice(1), [1, 1, 1], [1, 1, 1])).toEqual({ mce: 100 });
});

test('the ensemble answers with the mean of probabilities, not of logits', () => {
  const scores = (...data: number[]): Feeds => ({
    scores: { dtype: 'float32', dims: [1, 2], data: Float32Array.from(data) },
  });
  // The mean of the logits is 2 and 3: it would choose the other.
  const sure = new Ensemble('classification', ['scores']);
  sure.add([scores(3, 0), scores(3, 0), scores(0, 9)], { feeds: {}, labels: [0], size: 1 });
  expect(sure.result().accuracy).toBe(1);
});

test('of predicted values the ensemble is their mean', () => {
  const value = (v: number): Feeds => ({
    y: { dtype: 'float32', dims: [1, 1], data: Float32Array.of(v) },
  });
  const ensemble = new Ensemble('regression', ['y']);
  ensemble.add([value(1), value(3)], { feeds: {}, labels: [2], size: 1 });
  expect(ensemble.result()).toMatchObject({ rmse: 0, mae: 0 });
});
