import type { z } from 'zod';
import type { GradientModel } from '../../../autodiff/gradients.js';
import { taskLoss } from '../../../autodiff/targets.js';
import { shuffled, uniform } from '../../../data/index.js';
import { dataError, modelError, usageError } from '../../../errors.js';
import { taskGradients } from '../../../evaluate/forgetting/task-gradients.js';
import type { Model } from '../../../onnx/index.js';
import type { Context, Surgery, TaskData } from '../../method.js';
import { fullSet, isClassRequest, needForget, type Order } from '../data.js';
import { changedElements, editElements } from '../edit.js';
import { type PlannedParameter, skipUnreachable, type UnlearnLayer } from '../layers.js';
import { parametersHash } from '../parameters-hash.js';
import { show } from '../show.js';
import { type NamedPairs, refuseSearch, searchAlpha } from './alpha-search.js';
import { type Dampening, dampen } from './dampen.js';
import { computeImportances, type ImportanceOptions } from './importance.js';
import {
  type ImportanceStore,
  openImportances,
  pairImportances,
  writeImportances,
} from './importance-file.js';
import type { parameters } from './parameters.js';
import {
  assdPercentage,
  type RatioStatistics,
  ratioStatistics,
  selectedBy,
  suggestAlpha,
} from './ratios.js';
import { untiedCopies } from './untied.js';

type SsdParameters = z.infer<typeof parameters>;

/** Percentiles of the ratios that are told; that of adaptive SSD comes after them. */
const told = [50, 90, 99, 99.9];

/**
 * Selective Synaptic Dampening of the planned parameters of `model`, in memory. See `Method.apply`.
 */
export async function dampenModel(
  model: Model,
  given: SsdParameters,
  planned: readonly PlannedParameter[],
  context: Context,
): Promise<Surgery<UnlearnLayer>> {
  const forget = needForget(context.forget);
  refuseContradictions(given);
  if (given.alpha === 'auto') refuseSearch(context, forget);
  const notes: string[] = [];
  const { trained, unreachable } = await taskGradients(model, forget, {
    loss: given.variant === 'lfssd' ? 'squared-norm' : taskLoss(forget.task),
    threads: context.threads,
  });
  skipUnreachable(planned, unreachable);
  try {
    const { forget: ofForget, full } = await bothImportances(model, trained, given, context, notes);
    const chosen = planned.filter(({ report }) => report.status !== 'skipped');
    const pairs: NamedPairs = async function* () {
      const names = new Set(chosen.map(({ parameter }) => parameter.name));
      for await (const pair of pairImportances(ofForget, full))
        if (names.has(pair.name)) yield pair;
    };
    const forgetShare = assdPercentage(ofForget.metadata.samples, full.metadata.samples);
    const statistics = await ratioStatistics(pairs, [...told, forgetShare]);
    notes.push(ratioNote(statistics, ofForget, full));
    const dampening = await chooseDampening(trained, given, context, pairs, statistics, notes);
    if ((await selectedBy(pairs, dampening.alpha)) === 0)
      throw nothingSelected(dampening, statistics, bound(given, ofForget, full));
    const copies = untiedCopies(
      chosen.map(({ parameter }) => parameter),
      trained.values,
    );
    for (const [a, b] of copies) {
      notes.push(
        `"${a}" and "${b}" hold the same values: an exporter has untied them, and they are now dampened apart`,
      );
    }

    const byName = new Map(chosen.map((entry) => [entry.parameter.name, entry]));
    for await (const pair of pairs()) {
      const entry = byName.get(pair.name);
      const before = trained.values.get(pair.name);
      if (!entry || !before) continue;
      const { weights } = dampen(before, pair.forget, pair.full, dampening);
      const edit = changedElements(before, weights);
      entry.report.changed = edit.at.length;
      if (edit.at.length > 0) editElements(model, entry.parameter.tensor, edit);
      else entry.report.status = 'unchanged';
    }
  } finally {
    await trained.release();
  }
  return {
    layers: planned.map(({ report }) => report),
    changedTensors: [...model.edits.keys()].map((t) => t.name ?? ''),
    notes,
  };
}

/** Refuses parameters that exclude each other, before any work is done. */
function refuseContradictions({ variant, alpha, importance, saveImportance }: SsdParameters): void {
  if (variant === 'assd' && alpha !== undefined)
    throw usageError('assd finds its own alpha.', { hint: 'Leave out --alpha.' });
  if (importance !== undefined && saveImportance !== undefined)
    throw usageError('Importances that were read from a file are not stored again.', {
      hint: 'Leave out --save-importance, or --importance to compute them.',
    });
}

/** The importances of the forget set and of all data, from the data or from a file. */
async function bothImportances(
  model: Model,
  trained: GradientModel,
  given: SsdParameters,
  context: Context,
  notes: string[],
): Promise<{ forget: ImportanceStore; full: ImportanceStore }> {
  const forget = needForget(context.forget);
  const { retain } = context;
  const kind = given.variant === 'lfssd' ? 'lfssd-abs' : 'fisher-batch';
  const order: Order =
    given.order ?? (isClassRequest(forget, retain) ? 'class-sorted' : 'retain-then-forget');
  const options: Omit<ImportanceOptions, 'order' | 'progress'> = {
    task: given.variant === 'lfssd' ? 'none' : forget.task,
    kind,
    loss: given.variant === 'lfssd' ? 'sqnorm-logits' : lossLabel(forget.task),
    batchSize: given.fisher === 'sample' ? 1 : given.batchSize,
    modelSha256: await parametersHash(
      model,
      trained.parameters.map(({ tensor }) => tensor),
    ),
  };
  const stage = (name: string) => (done: number, total: number) =>
    context.progress(name, done, total);

  let full: ImportanceStore;
  if (given.importance !== undefined) {
    full = await openImportances(given.importance);
    if (given.allowStaleImportance) {
      if (full.metadata.modelSha256 !== options.modelSha256)
        notes.push('the stored importances are of other weights: the result is approximate');
      options.modelSha256 = full.metadata.modelSha256;
    }
    refuseOther(given.importance, full, options, trained);
    if (given.order !== undefined && full.metadata.order !== label(given.order, context.seed))
      notes.push(`the stored importances were read in another order: ${full.metadata.order}`);
  } else {
    if (!retain) {
      throw usageError('SSD compares the forget set with all data.', {
        expected: '--retain DATA, or --importance FILE with what was stored of it',
        hint: 'Importances are stored with --save-importance, once for all requests.',
      });
    }
    const shuffle = <T>(items: readonly T[]) => shuffled(items, uniform(context.seed));
    const all =
      given.importanceOf === 'retain'
        ? fullSet(retain, { ...forget, indices: [] }, order, shuffle)
        : fullSet(retain, forget, order, shuffle);
    full = await computeImportances(trained, all, {
      ...options,
      order: label(order, context.seed),
      progress: stage('importance of all data'),
    });
    if (given.saveImportance !== undefined) {
      await writeImportances(given.saveImportance, full, context.force ?? false);
      notes.push(`importances of all data stored: ${given.saveImportance}`);
    }
  }
  const own = await computeImportances(trained, forget, {
    ...options,
    order: 'as-given',
    progress: stage('importance of the forget set'),
  });
  return { forget: own, full };
}

/** Refuses stored importances that are not of this request, before others are computed. */
function refuseOther(
  path: string,
  { metadata, parameters }: ImportanceStore,
  wanted: Pick<ImportanceOptions, 'kind' | 'loss' | 'batchSize' | 'modelSha256'>,
  { parameters: own }: GradientModel,
): void {
  const differs = (what: string, expected: string, got: string, hint: string) =>
    dataError(`The stored importances are of another ${what}.`, {
      where: path,
      expected,
      got,
      hint,
    });
  const anew = 'Compute them anew, with --retain and --save-importance.';
  if (metadata.kind !== wanted.kind || metadata.loss !== wanted.loss)
    throw differs(
      'kind',
      `${wanted.kind}, ${wanted.loss}`,
      `${metadata.kind}, ${metadata.loss}`,
      `Choose the --variant and --task that they were computed with. ${anew}`,
    );
  if (metadata.batchSize !== wanted.batchSize)
    throw differs(
      'batch size',
      `${wanted.batchSize}`,
      `${metadata.batchSize}`,
      metadata.batchSize === 1
        ? 'Give --fisher sample, with which they were computed.'
        : `Give --batch-size ${metadata.batchSize}, with which they were computed.`,
    );
  const names = (list: readonly { name: string; shape: readonly number[] }[]) =>
    list.map(({ name, shape }) => `${name} [${shape.join(', ')}]`).sort();
  const [expected, got] = [names(own), names(parameters)];
  const at = expected.findIndex((name, i) => name !== got[i]);
  if (at >= 0 || expected.length !== got.length)
    throw differs(
      'model',
      expected[at] ?? `${expected.length} parameters`,
      (at < 0 ? undefined : got[at]) ?? `${got.length} parameters`,
      anew,
    );
  if (metadata.modelSha256 !== wanted.modelSha256)
    throw differs(
      'state of the model: its weights have changed since',
      `parameters of hash ${wanted.modelSha256}`,
      metadata.modelSha256,
      `${anew} Or take them as an approximation, with --allow-stale-importance.`,
    );
}

const label = (order: Order, seed: number): string =>
  order === 'shuffled' ? `shuffled:${seed}` : order === 'class-sorted' ? order : 'as-given';

const lossLabel = (task: TaskData['task']): string =>
  task === 'regression' ? 'mse-mean' : task === 'lm' ? 'ce-mean-tokens' : 'ce-mean-logits';

/** The thresholds that were given, or that are found. */
async function chooseDampening(
  trained: GradientModel,
  given: SsdParameters,
  context: Context,
  pairs: NamedPairs,
  statistics: RatioStatistics,
  notes: string[],
): Promise<Dampening> {
  const { exponent, cap, lambda = 1 } = given;
  const adaptive = statistics.percentiles[told.length];
  if (given.variant === 'assd') {
    notes.push(`alpha ${show(adaptive)}, as adaptive SSD chooses it`);
    return { alpha: adaptive, lambda, exponent, cap };
  }
  if (given.alpha !== 'auto') return { alpha: given.alpha ?? 10, lambda, exponent, cap };
  const found = await searchAlpha(trained, pairs, statistics.max, adaptive, given, context);
  notes.push(...found.notes);
  return { ...found, exponent, cap };
}

/** What no ratio can exceed: with single examples, when those of the forget set are among all. */
function bound(
  { importance, importanceOf }: SsdParameters,
  forget: ImportanceStore,
  full: ImportanceStore,
): number | undefined {
  const among = importance === undefined && importanceOf === 'all';
  return among && full.metadata.batchSize === 1
    ? full.metadata.samples / forget.metadata.samples
    : undefined;
}

/** Nothing changed is no success. */
function nothingSelected(
  { alpha }: Dampening,
  statistics: RatioStatistics,
  most: number | undefined,
): Error {
  const suggested = suggestAlpha(statistics, told.length);
  const because =
    most !== undefined && alpha >= most
      ? `; with single examples no ratio can exceed ${show(most)}, the size of all data over that of the forget set`
      : '';
  return modelError('No parameter was selected: nothing would be forgotten.', {
    expected: `ratios above alpha = ${show(alpha)}`,
    got: `${quantiles(statistics)}${because}`,
    hint:
      suggested === undefined
        ? 'Nothing in the model depends on the forget set: check the data.'
        : `Choose a smaller one, such as --alpha ${suggested}, or --alpha auto.`,
  });
}

const quantiles = ({ percentiles, max }: RatioStatistics): string =>
  `median ${show(percentiles[0])}, 90 % ${show(percentiles[1])}, 99 % ${show(percentiles[2])}, 99.9 % ${show(percentiles[3])}, largest ${show(max)}`;

const ratioNote = (
  statistics: RatioStatistics,
  forget: ImportanceStore,
  full: ImportanceStore,
): string =>
  `ratio of importances, forget set to all data: ${quantiles(statistics)}; all data over forget set: ${show(full.metadata.samples / forget.metadata.samples)}`;
