import type { GradientModel } from '../../../autodiff/gradients.js';
import { Adam } from '../../../autodiff/optimizer.js';
import { batchTarget } from '../../../autodiff/targets.js';
import { type Losses, refuseDivergence, runEpochs } from '../../../autodiff/training-loop.js';
import { batches, sampleIndices, shuffled, uniformFor } from '../../../data/index.js';
import type { TaskData } from '../../method.js';

export interface RepairOptions {
  /** Default 5. */
  epochs?: number;
  /** Default 0.001. */
  rate?: number;
  batchSize: number;
  /** Labels to look at, at most. */
  labels?: number;
  /** Batches of the forget set: an epoch of the authors' code has no more than these. */
  forgetBatches: number;
  seed: number;
  progress: (done: number, total: number, losses: Losses) => void;
}

/**
 * LAF+R: trains the classifier, by its labels, on kept examples.
 * @param classifier by the parameters behind the split, under the loss of the task; changed in place
 * @returns the mean loss of each epoch
 * @throws {ResectError} exit 5 when it diverges, exit 6 for labels that the task has no use for
 */
export async function repair(
  classifier: GradientModel,
  retain: TaskData,
  { epochs = 5, rate = 1e-3, batchSize, labels, forgetBatches, seed, progress }: RepairOptions,
): Promise<number[]> {
  const picks = sampleIndices(retain.indices.length, labels, seed);
  const labelled = picks.map((i) => retain.indices[i]);
  const perEpoch = Math.min(Math.ceil(labelled.length / batchSize), forgetBatches);
  const random = uniformFor(seed, 'laf repair');
  const optimizer = new Adam({ learningRate: rate });
  const means: number[] = [];
  await runEpochs({
    epochs,
    batches: () =>
      batches(
        retain.dataset,
        shuffled(labelled, random).slice(0, perEpoch * batchSize),
        batchSize,
        classifier.inputs,
      ),
    async step(batch) {
      const target = await batchTarget(classifier, retain.task, batch);
      const { loss, gradients } = await classifier.run(batch.feeds, target);
      optimizer.step(classifier.values, gradients);
      return { loss };
    },
    afterStep: (step, losses) => {
      refuseDivergence(losses, `at step ${step} of the repair`, 'Choose a smaller --repair-rate.');
      progress(step, epochs * perEpoch, losses);
      return false;
    },
    afterEpoch: async (_, { loss }) => {
      means.push(loss);
      return false;
    },
  });
  return means;
}
