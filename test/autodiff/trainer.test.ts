import { type GradientModel, gradients } from '../../src/autodiff/gradients.js';
import { Adam, type Floats, type Optimizer, Sgd } from '../../src/autodiff/optimizer.js';
import { batchTarget, taskLoss } from '../../src/autodiff/targets.js';
import { type TrainingOptions, train } from '../../src/autodiff/trainer.js';
import { batches, openDataset } from '../../src/data/index.js';
import { modelInputs } from '../../src/graph/interface.js';
import { type Model, readModel } from '../../src/onnx/index.js';
import { goldenModel, goldenSets } from '../methods/unlearn-model/helpers.js';
import { inRepository } from '../support/cli.js';
import { mlpRegression } from '../support/fixtures.js';
import { noise } from './small-models.js';

type Data = Parameters<typeof train>[1];

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

async function regression(): Promise<{ source: Model; data: Data }> {
  const source = await readModel(mlpRegression.model);
  const path = inRepository('fixtures/mlp-regression/train.yaml');
  const dataset = await openDataset(path, modelInputs(source.proto));
  return { source, data: { dataset, indices: range(96) } };
}

async function classification(): Promise<{ source: Model; data: Data }> {
  const source = await goldenModel('cnn');
  const { retain } = await goldenSets(source, 'class3');
  return { source, data: { dataset: retain.dataset, indices: retain.indices.slice(0, 96) } };
}

const tasks = { regression, classification };

/** Moves trained parameters away from where they are, so that there is something to learn. */
function disturb(values: ReadonlyMap<string, Floats>) {
  let seed = 1;
  for (const v of values.values()) {
    const size = Math.hypot(...v.subarray(0, 1000)) / Math.sqrt(Math.min(v.length, 1000)) || 0.1;
    const random = noise(v.length, seed++);
    for (let i = 0; i < v.length; i++) v[i] += 0.5 * size * random[i];
  }
}

async function lossOf(model: GradientModel, { dataset, indices }: Data): Promise<number> {
  for await (const batch of batches(dataset, indices, indices.length, model.inputs)) {
    const { loss } = await model.run(batch.feeds, await batchTarget(model, dataset.task, batch));
    return loss;
  }
  throw new Error('no data');
}

const setup = (optimizer: Optimizer, more: Partial<TrainingOptions> = {}) => ({
  optimizer,
  batchSize: 16,
  seed: 3,
  epochs: 100,
  ...more,
});

const optimizers: Record<string, (rate: number) => Optimizer> = {
  SGD: (rate) => new Sgd({ learningRate: rate, momentum: 0.9 }),
  Adam: (rate) => new Adam({ learningRate: rate / 10 }),
};

describe.each(Object.entries(tasks))('%s', (task, load) => {
  async function opened<T>(use: (model: GradientModel, data: Data) => Promise<T>): Promise<T> {
    const { source, data } = await load();
    expect(data.dataset.task).toBe(task);
    const model = await gradients(source, { loss: taskLoss(data.dataset.task) });
    disturb(model.values);
    try {
      return await use(model, data);
    } finally {
      await model.release();
    }
  }

  test.each(Object.entries(optimizers))('20 steps of %s lower the loss', (_, make) =>
    opened(async (model, data) => {
      const before = await lossOf(model, data);
      const options = setup(make(0.01), {
        task: data.dataset.task,
        afterStep: (step) => step === 20,
      });
      expect(await train(model, data, { task: data.dataset.task, ...options })).toBe(20);
      expect(await lossOf(model, data)).toBeLessThan(0.8 * before);
    }),
  );

  test('in the other direction the loss rises, and is told as it is', () =>
    opened(async (model, data) => {
      const before = await lossOf(model, data);
      const told: number[] = [];
      await train(model, data, {
        ...setup(new Sgd({ learningRate: 0.01 }), { direction: -1, epochs: 1 }),
        task: data.dataset.task,
        afterStep: (_, loss) => {
          told.push(loss);
          return false;
        },
      });
      expect(told).toHaveLength(6);
      expect(Math.min(...told)).toBeGreaterThan(0);
      expect(await lossOf(model, data)).toBeGreaterThan(before);
    }));

  test('the same seed makes the same bits, another seed others', async () => {
    const outcome = (seed: number) =>
      opened(async (model, data) => {
        const losses: number[] = [];
        await train(model, data, {
          ...setup(new Adam({ learningRate: 0.001 }), { seed }),
          task: data.dataset.task,
          afterStep: (step, loss) => {
            losses.push(loss);
            return step === 5;
          },
        });
        return { losses, values: new Map(model.values) };
      });
    const [a, b, c] = [await outcome(3), await outcome(3), await outcome(4)];
    expect(b).toEqual(a);
    expect(c.losses).not.toEqual(a.losses);
  });
});
