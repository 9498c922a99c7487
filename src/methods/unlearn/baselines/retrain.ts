import type { z } from 'zod';
import type { GradientModel } from '../../../autodiff/gradients.js';
import { Adam, type Optimizer, Sgd } from '../../../autodiff/optimizer.js';
import { batchTarget, taskLoss } from '../../../autodiff/targets.js';
import { train } from '../../../autodiff/trainer.js';
import { refuseDivergence, showLosses } from '../../../autodiff/training-loop.js';
import { batches, type Task } from '../../../data/index.js';
import { modelError } from '../../../errors.js';
import { taskGradients } from '../../../evaluate/forgetting/task-gradients.js';
import type { Model } from '../../../onnx/index.js';
import type { Calibration, Context, Surgery } from '../../method.js';
import { needForget } from '../data.js';
import { planParameters, refuseQuantized, skipUnreachable, type UnlearnLayer } from '../layers.js';
import { storeValues } from '../store-values.js';
import { type LessonName, lessons } from './lessons.js';
import type { trainingParameters } from './training-parameters.js';

/**
 * Trains the chosen parameters of `model`, in memory, with the loss of the task. Normalisation layers keep
 * their statistics.
 * @throws {NoGradientError} where gradients reach none of the chosen parameters
 */
export async function retrain(
  model: Model,
  given: z.infer<ReturnType<typeof trainingParameters>>,
  context: Context,
  name: LessonName,
): Promise<Surgery<UnlearnLayer>> {
  const forget = needForget(context.forget);
  const { task } = forget;
  const planned = planParameters(model, context.selects);
  refuseQuantized(planned, context.selects);
  const chosen = new Set(
    planned.flatMap(({ parameter, report }) => (report.status === 'skipped' ? [] : parameter.name)),
  );
  if (chosen.size === 0) throw nothingToTrain();
  const { trained, unreachable } = await taskGradients(model, forget, {
    loss: taskLoss(task),
    threads: context.threads,
    parameters: ({ name }) => chosen.has(name),
  });
  skipUnreachable(planned, unreachable);
  try {
    const { data, direction } = await lessons[name](context, trained);
    const steps = given.epochs * Math.ceil(data.indices.length / given.batchSize);
    let first = Number.NaN;
    const made = await train(trained, data, {
      task,
      optimizer: optimizer(given),
      batchSize: given.batchSize,
      seed: context.seed,
      epochs: given.epochs,
      direction,
      afterStep: (step, loss) => {
        if (step === 1) first = loss;
        context.progress('train', step, steps, showLosses({ loss }));
        refuseDivergence({ loss }, `at step ${step}`, advice);
        return false;
      },
    });
    // The loss of a step is that of the values before it.
    const last = await lossOf(trained, data, task);
    refuseDivergence({ loss: last }, 'at the end', advice);
    await storeValues(model, planned, trained.values);
    // What is told of the run: a loss that does not move says that the rate is wrong.
    const note = `${made} steps, loss ${first.toPrecision(3)} -> ${last.toPrecision(3)}; normalisation layers kept their statistics`;
    return {
      layers: planned.map(({ report }) => report),
      changedTensors: [...model.edits.keys()].map((t) => t.name ?? ''),
      notes: [note],
    };
  } finally {
    await trained.release();
  }
}

const optimizer = ({
  optimizer: name,
  learningRate,
  momentum,
  weightDecay,
}: z.infer<ReturnType<typeof trainingParameters>>): Optimizer =>
  name === 'sgd'
    ? new Sgd({ learningRate, momentum, weightDecay })
    : new Adam({ learningRate, weightDecay, decoupled: name === 'adamw' });

/** The loss on the first examples, with the values as they are now. */
async function lossOf(trained: GradientModel, data: Calibration, task: Task): Promise<number> {
  const some = data.indices.slice(0, 64);
  for await (const batch of batches(data.dataset, some, some.length, trained.inputs))
    return (await trained.run(batch.feeds, await batchTarget(trained, task, batch))).loss;
  return Number.NaN;
}

const advice = 'Choose a smaller --learning-rate.';

const nothingToTrain = () =>
  modelError('The model has no parameter that may be changed.', {
    hint: 'Check --include and --exclude with --dry-run.',
  });
