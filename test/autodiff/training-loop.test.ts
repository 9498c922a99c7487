import { refuseDivergence, runEpochs, showLosses } from '../../src/autodiff/training-loop.js';

/** Two batches an epoch, of the numbers that tell them apart. */
async function* batches(epoch: number) {
  yield 10 * epoch;
  yield 10 * epoch + 1;
}

async function run(more: Partial<Parameters<typeof runEpochs<number>>[0]> = {}) {
  const seen: number[] = [];
  const means: [number, number][] = [];
  const steps = await runEpochs({
    epochs: 3,
    batches,
    step: async (batch) => {
      seen.push(batch);
      return { loss: batch };
    },
    afterEpoch: async (epoch, { loss }) => {
      means.push([epoch, loss]);
      return false;
    },
    ...more,
  });
  return { seen, means, steps };
}

test('every batch of every epoch, and the means of their losses', async () => {
  expect(await run()).toEqual({
    seen: [0, 1, 10, 11, 20, 21],
    means: [
      [0, 0.5],
      [1, 10.5],
      [2, 20.5],
    ],
    steps: 6,
  });
});

test('epochs that were made are left out', async () => {
  expect(await run({ made: 2 })).toMatchObject({ seen: [20, 21], steps: 2 });
  expect(await run({ made: 3 })).toMatchObject({ seen: [], steps: 0 });
});

test('it stops after a step, or after an epoch', async () => {
  expect(await run({ afterStep: (step) => step === 3 })).toMatchObject({
    seen: [0, 1, 10],
    means: [[0, 0.5]],
    steps: 3,
  });
  expect(await run({ afterEpoch: async (epoch) => epoch === 1 })).toMatchObject({ steps: 4 });
});

test('losses that are no numbers are refused, by name', () => {
  expect(() => refuseDivergence({ a: 1, b: -2 }, 'here', 'do')).not.toThrow();
  for (const loss of [Number.NaN, Number.POSITIVE_INFINITY])
    expect(() => refuseDivergence({ a: 1, b: loss }, 'at step 7', 'Choose.')).toThrow(
      expect.objectContaining({
        exitCode: 5,
        detail: { got: `b is ${loss} at step 7`, hint: 'Choose.' },
      }),
    );
  expect(showLosses({ unlearning: 1.23456, alignment: -110.5 })).toBe(
    'unlearning 1.235, alignment -110.5',
  );
});
