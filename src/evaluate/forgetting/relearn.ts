import type { GradientModel } from '../../autodiff/gradients.js';
import { Sgd } from '../../autodiff/optimizer.js';
import { batchTarget, taskLoss } from '../../autodiff/targets.js';
import { train } from '../../autodiff/trainer.js';
import { batches, concat, type Task } from '../../data/index.js';
import type { Model } from '../../onnx/index.js';
import { accuracyOf } from './accuracy.js';
import type { ExampleSet, ForgettingSets } from './measure.js';
import { remembered } from './remembered.js';
import { taskGradients } from './task-gradients.js';

/** Relearning is given up after so many steps. */
export const relearnLimit = 500;

/** The share of the original's accuracy, or of its loss turned around, at which a set is known again. */
const enough = 0.95;

/** SGD as in the published comparisons. */
const recipe = { learningRate: 0.01, momentum: 0.9 };
const batchSize = 64;

export interface RelearnOptions {
  task: Task;
  threads: number;
  seed: number;
  progress: (done: number, total: number) => void;
}

/** How well a model knows the forget set: accuracy, or for a regression the inverse of its loss. */
export async function knowledgeOf(
  model: Model,
  forget: ExampleSet,
  { task, threads }: RelearnOptions,
): Promise<number> {
  const { trained } = await taskGradients(model, forget, { loss: taskLoss(task), threads });
  try {
    return await knowledge(trained, forget, task);
  } finally {
    await trained.release();
  }
}

/**
 * Training steps (SGD of rate 0.01, momentum 0.9, batches of 64 of all data) until a model knows the
 * forget set as well as 95 % of `original`. What was only hidden comes back within a few steps; what was
 * never learnt takes long.
 * @param original what `knowledgeOf` said of the model before anything was forgotten
 * @returns 0 when it knows it already; null when it does not within `relearnLimit` steps
 */
export async function relearnSteps(
  model: Model,
  sets: ForgettingSets,
  original: number,
  options: RelearnOptions,
): Promise<number | null> {
  const { task, threads, seed, progress } = options;
  const forget = { ...sets.forget, dataset: remembered(sets.forget.dataset) };
  const { retain } = sets;
  const { trained } = await taskGradients(model, forget, { loss: taskLoss(task), threads });
  const known = async () => (await knowledge(trained, forget, task)) >= enough * original;
  try {
    if (await known()) return 0;
    const all = retain ? union(retain, forget) : forget;
    const epochs = Math.ceil((relearnLimit * batchSize) / all.indices.length);
    let steps: number | null = null;
    await train(trained, all, {
      task,
      optimizer: new Sgd(recipe),
      batchSize,
      seed,
      epochs,
      afterStep: async (step) => {
        progress(step, relearnLimit);
        if (await known()) steps = step;
        return steps !== null || step >= relearnLimit;
      },
    });
    return steps;
  } finally {
    await trained.release();
  }
}

function union(a: ExampleSet, b: ExampleSet): ExampleSet {
  const shift = a.dataset.length;
  return {
    dataset: concat(a.dataset, b.dataset),
    indices: [...a.indices, ...b.indices.map((i) => i + shift)],
  };
}

async function knowledge(model: GradientModel, forget: ExampleSet, task: Task): Promise<number> {
  if (task !== 'regression') return accuracyOf(model, { ...forget, task });
  let sum = 0;
  for await (const batch of batches(forget.dataset, forget.indices, batchSize, model.inputs)) {
    const { loss } = await model.run(batch.feeds, await batchTarget(model, task, batch));
    sum += loss * batch.size;
  }
  return forget.indices.length / sum;
}
