import { createHash } from 'node:crypto';
import { type GradientModel, gradients } from '../../../autodiff/gradients.js';
import { taskLoss } from '../../../autodiff/targets.js';
import { showLosses } from '../../../autodiff/training-loop.js';
import { sampleIndices, type Task } from '../../../data/index.js';
import { dataError, modelError, usageError } from '../../../errors.js';
import { accuracyOf } from '../../../evaluate/forgetting/accuracy.js';
import { ofScores } from '../../../evaluate/forgetting/task-gradients.js';
import type { Model } from '../../../onnx/index.js';
import type { Context, Surgery, TaskData, TrainingStage } from '../../method.js';
import { isClassRequest, needForget, needRetain } from '../data.js';
import {
  type PlannedParameter,
  planParameters,
  refuseQuantized,
  skipUnreachable,
  type UnlearnLayer,
} from '../layers.js';
import { parametersHash } from '../parameters-hash.js';
import { show } from '../show.js';
import { storeValues } from '../store-values.js';
import { checkState, type RunRequest, readState } from './checkpoint.js';
import { type Examples, embed, oneBatch, pairsPerEpoch } from './examples.js';
import type { LafParameters } from './parameters.js';
import { repair } from './repair.js';
import { runLaf } from './run.js';
import { type LafSettings, settle } from './settings.js';
import { skipBehind } from './sides.js';
import { countElements, findSplits, otherOutputs, type Split, splitNotes } from './split.js';
import { vaeSizes } from './vae.js';

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
    const { feeds } = await oneBatch(examples.dataset, examples.indices.slice(0, size), all);
    const reached = await all.reachable(feeds);
    // Made only to see what is reached; what is needed again is made again.
    await all.release();
    const trained = view(reached.model);
    skipUnreachable(planned, reached.unreachable);
    const classifier = given.supervisedRepair
      ? await openClassifier(whole, splits.chosen, retain, planned)
      : undefined;
    if (classifier) view(classifier);

    const perEpoch = pairsPerEpoch(examples, size);
    const { checkpoint } = given;
    const earlier =
      given.resume && checkpoint !== undefined ? await readState(checkpoint) : undefined;
    const settings = settle(given, countElements(extractor), perEpoch, earlier?.request);
    const { epochs, latent, unlearnRate, alignRate } = settings;
    const request = await requestOf(model, settings, examples, trained, context.seed);
    if (earlier && checkpoint !== undefined)
      checkState(checkpoint, earlier, request, {
        values: trained.values,
        sizes: vaeSizes(width, latent),
        epochs,
      });
    const run = await runLaf(
      trained,
      examples,
      {
        given: settings,
        split: value,
        request,
        earlier,
        ...(given.minRetain !== undefined && {
          retainAccuracy: accuracyWatch(
            view(whole.with({ output: undefined })),
            examples,
            retain.task,
            context.seed,
          ),
        }),
      },
      context,
    );
    const { training, notes } = run;
    if (classifier) {
      const repaired = await repairClassifier(classifier, given, context);
      training.push(repaired);
      const [first, last] = [repaired.epochs[0], repaired.epochs[repaired.epochs.length - 1]];
      notes.push(`repair: loss ${show(first.loss)} -> ${show(last.loss)}`);
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
      settled: { split: value, epochs, latent, unlearnRate, alignRate },
      training,
    };
  } finally {
    for (const part of opened) await part.release();
  }
}

/**
 * The model by what stands behind the split alone, under the loss of the task.
 * @throws {ResectError} exit 5 when nothing there may be changed, exit 6 for labels that are no classes of
 *   the model
 */
async function openClassifier(
  whole: GradientModel,
  { extractor, classifier }: Split,
  retain: TaskData,
  planned: readonly PlannedParameter[],
): Promise<GradientModel> {
  const behind = whole.with({
    output: undefined,
    loss: taskLoss(retain.task),
    parameters: ({ tensor }) => classifier.has(tensor) && !extractor.has(tensor),
  });
  if (behind.parameters.length === 0) throw nothingToChange('behind the split');
  const { dataset, indices } = retain;
  const { feeds } = await oneBatch(dataset, indices.slice(0, 1), behind);
  const { model, unreachable } = await behind.reachable(feeds);
  skipUnreachable(planned, unreachable);
  try {
    if (retain.task !== 'classification') return model;
    const [, classes] = await model.rows(feeds);
    const odd = indices.find((i) => (dataset.label?.(i) ?? 0) >= classes);
    if (odd !== undefined)
      throw dataError('A label is no class of the model.', {
        where: `${dataset.path}, example ${odd}`,
        expected: `0 to ${classes - 1}`,
        got: `${dataset.label?.(odd)}`,
      });
    return await ofScores(model, retain);
  } catch (error) {
    await model.release();
    throw error;
  }
}

/** LAF+R. */
async function repairClassifier(
  classifier: GradientModel,
  given: LafParameters,
  context: Context,
): Promise<TrainingStage> {
  const [forget, retain] = [needForget(context.forget), needRetain(context.retain)];
  const start = performance.now();
  const losses = await repair(classifier, retain, {
    epochs: given.repairEpochs,
    rate: given.repairRate,
    batchSize: given.batchSize,
    labels: given.repairLabels,
    forgetBatches: Math.ceil(forget.indices.length / given.batchSize),
    seed: context.seed,
    progress: (done, total, loss) => context.progress('repair', done, total, showLosses(loss)),
  });
  return {
    stage: 'repair',
    epochs: losses.map((loss) => ({ loss })),
    seconds: (performance.now() - start) / 1000,
  };
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

/** The accuracy on some of the retain set, the same at each call. */
function accuracyWatch(scores: GradientModel, examples: Examples, task: Task, seed: number) {
  const { dataset, indices, kept } = examples;
  const some = sampleIndices(kept, watched, seed).map((i) => indices[i]);
  return () => accuracyOf(scores, { dataset, indices: some, task });
}

/** What the course of a run depends on, but for where it ends. */
async function requestOf(
  model: Model,
  settings: LafSettings,
  { representations, kept }: Examples,
  { parameters, output }: GradientModel,
  seed: number,
): Promise<RunRequest> {
  const { temperature, latent, vaeEpochs, vaeRate, batchSize, unlearnRate, alignRate } = settings;
  const { buffer, byteOffset, byteLength } = representations.values;
  return {
    split: output,
    model: await parametersHash(
      model,
      parameters.map(({ tensor }) => tensor),
    ),
    // They tell all that examples and the rest of the model are.
    representations: createHash('sha256')
      .update(new Uint8Array(buffer, byteOffset, byteLength))
      .digest('hex'),
    kept,
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
function sideEffects(model: Model, split: Split): string[] {
  const others = otherOutputs(model, split);
  const tied = [...split.extractor].filter(
    (tensor) => split.classifier.has(tensor) && model.edits.has(tensor),
  );
  return [
    ...(others.length > 0 ? [`other outputs may have changed as well: ${others.join(', ')}`] : []),
    ...(tied.length > 0
      ? [
          `WARNING: the classifier has changed, too: it shares ${tied.map(({ name }) => name).join(', ')} with the extractor`,
        ]
      : []),
  ];
}

const nothingToChange = (where: string) =>
  modelError(`The model has no parameter ${where} that may be changed.`, {
    hint: 'Check --include, --exclude and --split with --dry-run.',
  });
