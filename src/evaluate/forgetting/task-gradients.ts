import { type GradientModel, gradients, type Reachable } from '../../autodiff/gradients.js';
import type { LossName } from '../../autodiff/losses.js';
import { batches } from '../../data/index.js';
import type { Parameter } from '../../graph/parameters.js';
import type { Model } from '../../onnx/index.js';
import type { ExampleSet } from './measure.js';
import { areProbabilities } from './rows.js';

/** Examples that tell what the model puts out. */
const looked = 64;

export interface TaskGradients {
  trained: GradientModel;
  /** See `Reachable`. */
  unreachable?: Reachable['unreachable'];
}

/**
 * A model with the gradients of a loss by those of its parameters that gradients reach.
 * @throws {NoGradientError} when gradients reach none of them
 */
export async function taskGradients(
  model: Model,
  examples: ExampleSet,
  {
    loss,
    threads,
    parameters = () => true,
  }: { loss: LossName; threads: number; parameters?: (parameter: Parameter) => boolean },
): Promise<TaskGradients> {
  const all = await gradients(model, { loss, threads, parameters });
  try {
    const { model: trained, unreachable } = await all.reachable(await firstFeeds(all, examples));
    return {
      trained: loss === 'cross-entropy' ? await ofScores(trained, examples) : trained,
      ...(unreachable && { unreachable }),
    };
  } catch (error) {
    await all.release();
    throw error;
  }
}

/**
 * A model under cross-entropy or, where it puts out probabilities and no Softmax tells where they come
 * from, under that of the probabilities; the first is then released.
 */
export async function ofScores(
  trained: GradientModel,
  examples: ExampleSet,
): Promise<GradientModel> {
  const source = await trained.lossSource(await firstFeeds(trained, examples));
  if (source !== trained.output || !(await givesProbabilities(trained, examples))) return trained;
  await trained.release();
  return trained.with({ loss: 'likelihood' });
}

/** Whether what looks like scores is a distribution for every one of the first examples. */
async function givesProbabilities(
  trained: GradientModel,
  { dataset, indices }: ExampleSet,
): Promise<boolean> {
  for await (const { feeds } of batches(
    dataset,
    indices.slice(0, looked),
    looked,
    trained.inputs,
  )) {
    const { data, dims } = await trained.predict(feeds);
    const rows = Float32Array.from(data as ArrayLike<number>);
    if (!areProbabilities(rows, dims[dims.length - 1])) return false;
  }
  return true;
}

async function firstFeeds(trained: GradientModel, { dataset, indices }: ExampleSet) {
  for await (const { feeds } of batches(dataset, indices.slice(0, 1), 1, trained.inputs))
    return feeds;
  throw new Error('a set has an example');
}
