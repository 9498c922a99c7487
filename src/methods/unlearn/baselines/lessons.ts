import type { GradientModel } from '../../../autodiff/gradients.js';
import { batches, type Dataset, type Example, normal, uniform } from '../../../data/index.js';
import type { Calibration, Context, TaskData } from '../../method.js';
import { fullSet, needForget, needRetain } from '../data.js';

/** What a baseline trains on, and whether the loss is descended or ascended. */
export interface Lesson {
  data: Calibration;
  direction: 1 | -1;
}

export type LessonName = 'finetune' | 'amnesiac' | 'gradient-ascent';

/** The lesson of a baseline, by its name. */
export const lessons: Record<
  LessonName,
  (context: Context, model: GradientModel) => Promise<Lesson>
> = {
  finetune: async (context) => ({ data: needRetain(context.retain), direction: 1 }),

  amnesiac: async (context, model) => {
    const forget = needForget(context.forget);
    const relabelled = { ...forget, dataset: await relabel(forget, context, model) };
    const data = fullSet(needRetain(context.retain), relabelled, 'retain-then-forget', (all) => [
      ...all,
    ]);
    return { data, direction: 1 };
  },

  'gradient-ascent': async ({ forget }) => ({ data: needForget(forget), direction: -1 }),
};

/**
 * The forget set with wrong labels, drawn once: another class, other tokens, or for a regression a number from a normal distribution with the mean and
 * deviation of all targets.
 */
async function relabel(forget: TaskData, context: Context, model: GradientModel): Promise<Dataset> {
  const { dataset, indices, task } = forget;
  const random = uniform(context.seed);
  const seeds = new Map(indices.map((i) => [i, random()]));
  const wrong =
    task === 'regression'
      ? await wrongTargets(forget, needRetain(context.retain))
      : wrongClasses(await classCount(forget, model));
  return {
    ...dataset,
    label: undefined,
    example: async (i) => {
      const example = await dataset.example(i);
      return { ...example, label: wrong(example.label, uniform(2 ** 31 * (seeds.get(i) ?? 0))) };
    },
  };
}

type Relabel = (label: Example['label'], random: () => number) => Example['label'];

function wrongClasses(count: number): Relabel {
  const other = (right: number, random: () => number): number => {
    const drawn = Math.floor(random() * (count - 1));
    return drawn < right ? drawn : drawn + 1;
  };
  return (right, random) =>
    typeof right === 'object'
      ? {
          ...right,
          data: BigInt64Array.from(right.data as BigInt64Array, (token) =>
            BigInt(other(Number(token), random)),
          ),
        }
      : other(Number(right), random);
}

async function wrongTargets(forget: TaskData, retain: TaskData): Promise<Relabel> {
  let [n, mean, squares] = [0, 0, 0];
  for (const { dataset, indices } of [retain, forget]) {
    for (const i of indices) {
      const { label } = await dataset.example(i);
      const values =
        typeof label === 'object' ? Array.from(label.data as ArrayLike<number>) : [Number(label)];
      for (const value of values) {
        const step = Number(value) - mean;
        mean += step / ++n;
        squares += step * (Number(value) - mean);
      }
    }
  }
  const deviation = Math.sqrt(squares / Math.max(1, n - 1));
  return (right, random) => {
    const draw = normal(random);
    const value = () => mean + deviation * draw();
    return typeof right === 'object'
      ? {
          ...right,
          dtype: 'float64',
          data: Float64Array.from(right.data as ArrayLike<number>, value),
        }
      : value();
  };
}

/** Classes, or the size of the vocabulary. */
async function classCount({ dataset, indices }: TaskData, model: GradientModel): Promise<number> {
  for await (const { feeds } of batches(dataset, indices.slice(0, 1), 1, model.inputs))
    return (await model.rows(feeds))[1];
  throw new Error('a forget set has an example');
}
