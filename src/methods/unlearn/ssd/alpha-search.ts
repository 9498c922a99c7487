import type { GradientModel } from '../../../autodiff/gradients.js';
import type { Floats } from '../../../autodiff/optimizer.js';
import { batches, sampleIndices } from '../../../data/index.js';
import { modelError, usageError } from '../../../errors.js';
import { accuracyOf } from '../../../evaluate/forgetting/accuracy.js';
import { remembered } from '../../../evaluate/forgetting/remembered.js';
import type { Context, TaskData } from '../../method.js';
import { classesOf, isClassRequest, needForget } from '../data.js';
import { type AlphaGoal, type AlphaOutcome, alphaCandidates, chooseAlpha } from './alpha-grid.js';
import { type Dampening, dampen, type ImportancePair } from './dampen.js';

/** Kept examples that candidates are tried on, at most. */
const tried = 1000;

/** What the retain set may lose where no gate says it. */
const defaultDrop = 0.02;

/** Values of lambda to try, in this order, where none was given. */
const lambdas = [1, 0.1];

/** The importances of all parameters, tensor by tensor, with their names. */
export type NamedPairs = () => AsyncIterable<ImportancePair & { name: string }>;

/** Further alphas to try between two of the grid. */
const refinements = 6;

interface Outcome extends AlphaOutcome {
  lambda: number;
}

/**
 * Refuses a search that has nothing to go by, before any work is done.
 * @throws {ResectError} exit 2
 */
export function refuseSearch(context: Context, forget: TaskData): void {
  if (forget.task !== 'classification' && forget.task !== 'lm')
    throw usageError('--alpha auto goes by accuracy, which this task has none of.', {
      where: `--task ${forget.task}`,
      hint: 'Choose --alpha yourself, or --variant assd.',
    });
  keptExamples(context, forget);
}

/**
 * Tries values of alpha, and of lambda, on the forget set and on kept examples: the gradients are not
 * taken again. Of those that forget enough and keep enough the largest alpha is chosen.
 * @throws {ResectError} exit 5, with what was tried, when none does
 */
export async function searchAlpha(
  model: GradientModel,
  pairs: NamedPairs,
  maxRatio: number,
  adaptive: number,
  given: { lambda?: number; exponent: number; cap: number; forgetTarget?: number },
  context: Context,
): Promise<{ alpha: number; lambda: number; notes: string[] }> {
  const forget = read(needForget(context.forget));
  const kept = read(keptExamples(context, forget));
  const maxRetainDrop = context.maxDrop?.accuracy ?? defaultDrop;
  const accuracy = forget.task === 'lm' ? 'token accuracy' : 'accuracy';
  const before = await accuracyOf(model, kept);
  const forgetTarget = given.forgetTarget ?? (await defaultTarget(model, context, forget, before));

  const evaluate = async (dampening: Dampening): Promise<Outcome> => {
    const originals = new Map<string, Floats>();
    for await (const { name, forget: own, full } of pairs()) {
      const values = model.values.get(name);
      if (!values) continue;
      const { weights, selected } = dampen(values, own, full, dampening);
      if (selected === 0) continue;
      originals.set(name, values.slice());
      values.set(weights);
    }
    const { alpha, lambda } = dampening;
    const forgetAccuracy = await accuracyOf(model, forget);
    const retainAccuracy = await accuracyOf(model, kept);
    for (const [name, values] of originals) model.values.get(name)?.set(values);
    return { alpha, lambda, forgetAccuracy, retainAccuracy };
  };
  const goal = { forgetTarget, retainBefore: before, maxRetainDrop };
  const outcomes: Outcome[] = [];
  for (const lambda of given.lambda === undefined ? lambdas : [given.lambda]) {
    const own: Outcome[] = [];
    const attempt = async (alpha: number) => {
      const outcome = await evaluate({ ...given, alpha, lambda });
      own.push(outcome);
      outcomes.push(outcome);
    };
    const alphas = alphaCandidates(adaptive, maxRatio);
    for (const [i, alpha] of alphas.entries()) {
      context.progress('search alpha', i, alphas.length);
      await attempt(alpha);
    }
    for (let i = 0; i < refinements && !chooseAlpha(own, goal).chosen; i++) {
      const between = nextAlpha(own, goal);
      if (between === undefined) break;
      context.progress('refine alpha', i, refinements);
      await attempt(between);
    }
    const { chosen } = chooseAlpha(own, goal);
    if (chosen) {
      const note = `alpha ${show(chosen.alpha)}, lambda ${lambda} of ${outcomes.length} tried: ${accuracy} ${percent(chosen.forgetAccuracy)} on the forget set (wanted at most ${percent(forgetTarget)}), ${percent(before)} -> ${percent(chosen.retainAccuracy)} on ${kept.indices.length} kept examples`;
      return { alpha: chosen.alpha, lambda, notes: [note] };
    }
  }
  const { pareto } = chooseAlpha(outcomes, goal);
  throw modelError('No alpha forgets enough and keeps enough.', {
    expected: `${accuracy} of at most ${percent(forgetTarget)} on the forget set, and on kept examples at least ${percent(before - maxRetainDrop)}`,
    got: pareto
      .map(
        (o) =>
          `alpha ${show(o.alpha)} lambda ${o.lambda}: ${percent(o.forgetAccuracy)} and ${percent(o.retainAccuracy)}`,
      )
      .join('; '),
    hint: 'Choose one of these by --alpha and --lambda, or allow more with --forget-target and --max-drop accuracy=AMOUNT.',
  });
}

/**
 * An alpha between the largest one that forgets enough and the smallest one that keeps enough.
 * Undefined when there is no such pair: then nothing is to be found between.
 */
function nextAlpha(outcomes: readonly Outcome[], goal: AlphaGoal): number | undefined {
  const { forgetTarget, retainBefore, maxRetainDrop } = goal;
  const forgets = outcomes.filter((o) => o.forgetAccuracy <= forgetTarget);
  const keeps = outcomes.filter((o) => retainBefore - o.retainAccuracy <= maxRetainDrop);
  const low = Math.max(...forgets.map(({ alpha }) => alpha));
  const high = Math.min(...keeps.map(({ alpha }) => alpha).filter((alpha) => alpha > low));
  return Number.isFinite(low) && Number.isFinite(high) ? Math.sqrt(low * high) : undefined;
}

const read = (set: TaskData): TaskData => ({ ...set, dataset: remembered(set.dataset) });

/** The retain set, or test examples of other classes where it is not at hand. */
function keptExamples({ retain, test, seed }: Context, forget: TaskData): TaskData {
  const classes = isClassRequest(forget, retain) ? classesOf(forget) : undefined;
  const from = retain ?? test;
  if (!from) {
    throw usageError('--alpha auto needs examples that are to be kept.', {
      expected: '--retain DATA or --eval DATA',
      hint: 'Or choose --alpha yourself.',
    });
  }
  const { label } = from.dataset;
  const others = from.indices.filter((i) => !(classes && label && classes.has(label(i))));
  if (others.length === 0) {
    throw usageError('--alpha auto needs examples that are to be kept, and there are none.', {
      where: from.dataset.path,
      hint: 'Give some with --retain, or choose --alpha yourself.',
    });
  }
  const picks = sampleIndices(others.length, tried, seed);
  return { ...from, indices: picks.map((i) => others[i]) };
}

/** Chance for whole classes; otherwise what the model reaches on data that it never saw. */
async function defaultTarget(
  model: GradientModel,
  { retain, test }: Context,
  forget: TaskData,
  keptAccuracy: number,
): Promise<number> {
  if (!isClassRequest(forget, retain)) return test ? accuracyOf(model, test) : keptAccuracy;
  for await (const { feeds } of batches(
    forget.dataset,
    forget.indices.slice(0, 1),
    1,
    model.inputs,
  ))
    return 1 / (await model.rows(feeds))[1];
  throw new Error('a forget set has an example');
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const show = (value: number): string => String(Number(value.toPrecision(4)));
