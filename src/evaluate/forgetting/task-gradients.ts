import { type GradientModel, gradients } from '../../autodiff/gradients.js';
import type { LossName } from '../../autodiff/losses.js';
import { NoGradientError } from '../../autodiff/reverse.js';
import { batches } from '../../data/index.js';
import type { Parameter } from '../../graph/parameters.js';
import type { Model } from '../../onnx/index.js';
import type { ExampleSet } from './measure.js';
import { areProbabilities } from './rows.js';

/** Examples that tell what the model puts out. */
const looked = 64;

export interface TaskGradients {
  trained: GradientModel;
  /** Parameters that were wanted and that gradients do not reach, and the op that is in their way. */
  unreachable?: { parameters: string[]; op: string };
}

/**
 * A model with the gradients of a loss by those of its parameters that gradients reach. Where the model
 * puts out probabilities and no Softmax tells where they come from, cross-entropy is that of the
 * probabilities.
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
  const open = (wants = parameters, ofLoss = loss) =>
    gradients(model, { loss: ofLoss, threads, parameters: wants });
  let trained = await open();
  let unreachable: TaskGradients['unreachable'];
  let wants = parameters;
  try {
    const first = await firstFeeds(trained, examples);
    const source = await trained.lossSource(first).catch(async (error) => {
      if (!(error instanceof NoGradientError) || error.reachable.length === 0) throw error;
      await trained.release();
      unreachable = { parameters: error.unreachable, op: error.op };
      const reachable = new Set(error.reachable);
      wants = ({ name }) => reachable.has(name);
      trained = await open(wants);
      return trained.lossSource(first);
    });
    const scores = loss === 'cross-entropy' && source === trained.output;
    if (scores && (await givesProbabilities(trained, examples))) {
      await trained.release();
      trained = await open(wants, 'likelihood');
    }
    return { trained, ...(unreachable && { unreachable }) };
  } catch (error) {
    await trained.release();
    throw error;
  }
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
