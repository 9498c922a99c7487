import { batches, type Dataset, shuffled, type Task, uniform } from '../data/index.js';
import type { GradientModel } from './gradients.js';
import type { Optimizer } from './optimizer.js';
import { batchTarget } from './targets.js';
import { runEpochs } from './training-loop.js';

export interface TrainingOptions {
  task: Task;
  optimizer: Optimizer;
  batchSize: number;
  /** Orders the examples anew in every epoch. */
  seed: number;
  epochs: number;
  /** +1 descends the loss, -1 ascends it. */
  direction?: 1 | -1;
  /** After every step: steps so far, its loss. Training stops when it returns true. */
  afterStep?: (step: number, loss: number) => boolean | undefined | Promise<boolean | undefined>;
}

/**
 * Trains a model's parameters, in place, on the examples of a data set.
 * Normalisation layers keep their statistics, as in the graph.
 * @returns steps that were made
 */
export function train(
  model: GradientModel,
  data: { dataset: Dataset; indices: readonly number[] },
  options: TrainingOptions,
): Promise<number> {
  const { task, optimizer, batchSize, seed, epochs, direction = 1, afterStep } = options;
  const random = uniform(seed);
  return runEpochs({
    epochs,
    batches: () => batches(data.dataset, shuffled(data.indices, random), batchSize, model.inputs),
    async step(batch) {
      const target = await batchTarget(model, task, batch);
      const weight = target.weight?.map((w) => direction * w);
      const { loss, gradients } = await model.run(batch.feeds, { ...target, weight });
      optimizer.step(model.values, gradients);
      return { loss: direction * loss };
    },
    afterStep: (step, { loss }) => afterStep?.(step, loss),
  });
}
