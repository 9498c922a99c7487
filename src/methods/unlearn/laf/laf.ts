import { createHash } from 'node:crypto';
import { type GradientModel, gradients } from '../../../autodiff/gradients.js';
import { taskLoss } from '../../../autodiff/targets.js';
import { showLosses } from '../../../autodiff/training-loop.js';
import { hashFiles, sampleIndices } from '../../../data/index.js';
import { modelError, usageError } from '../../../errors.js';
import { accuracyOf } from '../../../evaluate/forgetting/accuracy.js';
import { remembered } from '../../../evaluate/forgetting/remembered.js';
import { ofScores } from '../../../evaluate/forgetting/task-gradients.js';
import type { Model } from '../../../onnx/index.js';
import type { Context, Surgery, TaskData, TrainingStage } from '../../method.js';
import { isClassRequest, needForget, needRetain } from '../data.js';
import { planParameters, refuseQuantized, skipUnreachable, type UnlearnLayer } from '../layers.js';
import { parametersHash } from '../parameters-hash.js';
import { storeValues } from '../store-values.js';
import type { RunRequest } from './checkpoint.js';
import { type Examples, embed, pairs, pairsPerEpoch } from './examples.js';
import type { LafParameters } from './parameters.js';
import { repair } from './repair.js';
import { runLaf } from './run.js';
import { type LafSettings, settle } from './settings.js';
import { skipBehind } from './sides.js';
import { countElements, findSplits, otherOutputs, type Split, splitNotes } from './split.js';

/** Kept examples that accuracy is watched on, at most. */
const watched = 1000;

/**
 * Label-Agnostic Forgetting (arXiv 2404.00506) of the forget set by `model`, in memory. See `Method.apply`.
 * @throws {NoGradientError} when gradients reach no parameter of the extractor
 */
export async function forgetRepresentations(
  model: Model,
  given: LafParameters,
  context: Context,
): Promise<Surgery<UnlearnLayer>> {
  const forget = needForget(context.forget);
  const retain = needRetain(context.retain);
  refuseUnlabelled(given, retain);
  const planned = planParameters(model, context.selects);
  refuseQuantized(planned, context.selects);
  const splits = await findSplits(model, given.split, forget);
  const { value, width, extractor } = splits.chosen;
  skipBehind(planned, splits.chosen, given.supervisedRepair);
  const chosen = new Set(
    planned.flatMap(({ parameter, report }) => (report.status === 'skipped' ? [] : parameter.name)),
  );
  if (
    !planned.some(({ parameter }) => chosen.has(parameter.name) && extractor.has(parameter.tensor))
  )
    throw nothingToChange('before the split');

  // All views of the model below work on the values of this one.
  const whole = await gradients(model, {
    loss: { seeds: [value] },
    output: value,
    threads: context.threads,
    parameters: ({ name }) => chosen.has(name),
  });
  const opened = new Set<GradientModel>([whole]);
  const view = (part: GradientModel): GradientModel => {
    opened.add(part);
    return part;
  };
  try {
    const all = view(whole.with({ parameters: ({ tensor }) => extractor.has(tensor) }));
    const size = given.batchSize;
    const examples = await embed(all, retain, forget, { width, size }, (done, total) =>
      context.progress('representations', done, total),
    );
    const settings = settle(given, countElements(extractor), pairsPerEpoch(examples, size));
    const first = await firstFeeds(all, examples, size);
    const { model: trained, unreachable } = await all.reachable(first);
    view(trained);
    skipUnreachable(planned, unreachable);
    const scores = view(whole.with({ output: undefined }));
    const { epochs, vaeLosses, notes } = await runLaf(
      trained,
      examples,
      {
        given: settings,
        split: value,
        request: await requestOf(model, settings, context, trained, value),
        ...(given.minRetain !== undefined && {
          retainAccuracy: accuracyWatch(scores, retain, context.seed),
        }),
      },
      context,
    );
    const training: TrainingStage[] = [
      stage('autoencoder of all examples', vaeLosses.all),
      stage('autoencoder of the forget set', vaeLosses.forgotten),
      { stage: 'unlearning', epochs },
    ];
    if (given.supervisedRepair) {
      const losses = await repairClassifier(whole, splits.chosen, given, context);
      training.push(stage('repair', losses));
      const last = losses.length - 1;
      notes.push(`repair: loss ${show(losses[0])} -> ${show(losses[last])}`);
      if (isClassRequest(forget, retain))
        notes.push(
          'the classifier was trained without the forgotten classes: it hides them, whatever the representations still tell',
        );
    }
    await storeValues(model, planned, whole.values);
    return {
      layers: planned.map(({ report }) => report),
      changedTensors: [...model.edits.keys()].map((t) => t.name ?? ''),
      notes: [splitNotes(splits)[0], ...notes, ...sideEffects(model, splits.chosen)],
      training,
    };
  } finally {
    for (const part of opened) await part.release();
  }
}

/** LAF+R: trains what stands behind the split alone. @returns the mean loss of each epoch */
async function repairClassifier(
  whole: GradientModel,
  { extractor, classifier }: Split,
  given: LafParameters,
  context: Context,
): Promise<number[]> {
  const [forget, retain] = [needForget(context.forget), needRetain(context.retain)];
  const behind = whole.with({
    output: undefined,
    loss: taskLoss(retain.task),
    parameters: ({ tensor }) => classifier.has(tensor) && !extractor.has(tensor),
  });
  if (behind.parameters.length === 0) throw nothingToChange('behind the split');
  const trained = retain.task === 'classification' ? await ofScores(behind, retain) : behind;
  try {
    return await repair(trained, retain, {
      epochs: given.repairEpochs,
      rate: given.repairRate,
      batchSize: given.batchSize,
      labels: given.repairLabels,
      forgetBatches: Math.ceil(forget.indices.length / given.batchSize),
      seed: context.seed,
      progress: (done, total, loss) => context.progress('repair', done, total, showLosses(loss)),
    });
  } finally {
    await trained.release();
  }
}

/** Refuses what looks at labels where there are none, before any work is done. */
function refuseUnlabelled(
  { minRetain, supervisedRepair, repairLabels }: LafParameters,
  { task, dataset, indices }: TaskData,
): void {
  if (minRetain !== undefined && task !== 'classification' && task !== 'lm')
    throw usageError(
      '--min-retain watches the accuracy on the retain set, which this has none of.',
      {
        where: dataset.path,
        got: `task ${task}`,
        hint: 'Give class labels, or go by --max-shift, which needs none.',
      },
    );
  if (supervisedRepair && task === 'none')
    throw usageError('The repair takes labels of the retain set.', {
      where: dataset.path,
      hint: 'Leave out --supervised-repair, or say with --task what the labels are.',
    });
  if (repairLabels !== undefined && repairLabels > indices.length)
    throw usageError('--repair-labels asks for more labels than there are.', {
      where: dataset.path,
      expected: `at most ${indices.length}`,
      got: `${repairLabels}`,
    });
}

async function firstFeeds(model: GradientModel, examples: Examples, size: number) {
  for await (const { kept } of pairs(model, examples, { size, latent: 1, seed: 0, epoch: 0 }))
    return kept.feeds;
  throw new Error('two sets of examples make a pair');
}

/** The accuracy on some of the retain set, the same at each call. */
function accuracyWatch(scores: GradientModel, retain: TaskData, seed: number) {
  const picks = sampleIndices(retain.indices.length, watched, seed);
  const some = {
    ...retain,
    dataset: remembered(retain.dataset),
    indices: picks.map((i) => retain.indices[i]),
  };
  return () => accuracyOf(scores, some);
}

/** What the course of a run depends on, but for where it ends. */
async function requestOf(
  model: Model,
  { temperature, latent, vaeEpochs, vaeRate, batchSize, unlearnRate, alignRate }: LafSettings,
  { forget, retain, seed }: Context,
  { parameters }: GradientModel,
  split: string,
): Promise<RunRequest> {
  const set = async ({ dataset, indices }: TaskData) => {
    const which = createHash('sha256').update(indices.join()).digest('hex');
    return `${await hashFiles(dataset.files)} ${which}`;
  };
  return {
    model: await parametersHash(
      model,
      parameters.map(({ tensor }) => tensor),
    ),
    forget: await set(needForget(forget)),
    retain: await set(needRetain(retain)),
    split,
    seed,
    temperature,
    latent,
    'vae-epochs': vaeEpochs,
    'vae-rate': vaeRate,
    'batch-size': batchSize,
    'unlearn-rate': unlearnRate,
    'align-rate': alignRate,
  };
}

/** What else changes with the representations. */
function sideEffects(model: Model, { extractor, classifier }: Split): string[] {
  const others = otherOutputs(model);
  const tied = [...extractor].filter((tensor) => classifier.has(tensor)).map(({ name }) => name);
  return [
    ...(others.length > 0 ? [`other outputs may have changed as well: ${others.join(', ')}`] : []),
    ...(tied.length > 0
      ? [
          `WARNING: the classifier has changed, too: it shares ${tied.join(', ')} with the extractor`,
        ]
      : []),
  ];
}

const stage = (name: string, losses: readonly number[]): TrainingStage => ({
  stage: name,
  epochs: losses.map((loss) => ({ loss })),
});

const show = (value: number): string => String(Number(value.toPrecision(3)));

const nothingToChange = (where: string) =>
  modelError(`The model has no parameter ${where} that may be changed.`, {
    hint: 'Check --include, --exclude and --split with --dry-run.',
  });
