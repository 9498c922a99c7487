import type { GradientModel } from '../../../autodiff/gradients.js';
import type { Floats } from '../../../autodiff/optimizer.js';
import { batchTarget } from '../../../autodiff/targets.js';
import { type Batch, batches, type Task } from '../../../data/index.js';
import type { Calibration } from '../../method.js';
import { type ImportanceMetadata, type ImportanceStore, importancesOf } from './importance-file.js';

export interface ImportanceOptions {
  task: Task;
  /** Squares of the gradient (SSD), or its absolute values (LFSSD). */
  kind: ImportanceMetadata['kind'];
  loss: string;
  /**
   * Examples whose mean loss is differentiated at once. 1 gives the empirical Fisher information, of
   * each example apart, and takes the fast way to it where the graph allows.
   */
  batchSize: number;
  order: string;
  modelSha256: string;
  progress: (done: number, total: number) => void;
}

/** Elements of per-sample gradients that one run may hold, over its largest parameter. */
const perSampleBudget = 2 ** 22;

/** Examples at once when gradients are taken one example at a time. */
const largestRun = 64;

/** Relative difference that float32 sums in another order may make. */
const tolerance = 1e-3;

/**
 * Importances of every parameter on a data set, as the authors' code computes them: for each batch the
 * square (or absolute value) of the gradient of its mean loss, summed. A short last batch counts as one.
 * Accumulates in float32, like the gradients.
 * @param examples in the order that decides what a batch is
 */
export async function computeImportances(
  model: GradientModel,
  examples: Calibration,
  options: ImportanceOptions,
): Promise<ImportanceStore> {
  const { batchSize, kind, loss, order, modelSha256 } = options;
  const samples = examples.indices.length;
  const sums = new Map(
    model.parameters.map(({ name, shape }) => [
      name,
      { shape, values: new Float32Array(model.values.get(name)?.length ?? 0) as Floats },
    ]),
  );
  const add: Add = (gradients, term) => {
    for (const [name, gradient] of gradients) {
      const { values } = sums.get(name) as { values: Floats };
      addTerms(values, gradient, term);
    }
  };
  const count =
    batchSize === 1 && kind === 'fisher-batch'
      ? await addSamples(model, examples, options, add)
      : await addBatches(model, examples, options, add);
  const metadata: ImportanceMetadata = {
    kind,
    loss,
    batches: count,
    samples,
    batchSize,
    lastBatch: samples - (count - 1) * batchSize,
    order,
    modelSha256,
    dataNote: examples.dataset.path,
  };
  return importancesOf(metadata, sums);
}

type Gradients = ReadonlyMap<string, Floats>;
type Term = 'square' | 'absolute' | 'as it is';
type Add = (gradients: Gradients, term: Term) => void;

/** A loop for each term: one that calls a function for every element takes several times as long. */
function addTerms(sums: Floats, gradient: Floats, term: Term): void {
  const n = sums.length;
  if (term === 'square') for (let i = 0; i < n; i++) sums[i] += gradient[i] * gradient[i];
  else if (term === 'absolute') for (let i = 0; i < n; i++) sums[i] += Math.abs(gradient[i]);
  else for (let i = 0; i < n; i++) sums[i] += gradient[i];
}

async function addBatches(
  model: GradientModel,
  { dataset, indices }: Calibration,
  { task, kind, batchSize, progress }: ImportanceOptions,
  add: Add,
): Promise<number> {
  const term = kind === 'lfssd-abs' ? 'absolute' : 'square';
  let count = 0;
  for (let at = 0; at < indices.length; at += batchSize) {
    const some = indices.slice(at, at + batchSize);
    add(await batchGradients(model, { dataset, indices: some }, task), term);
    count++;
    progress(at + some.length, indices.length);
  }
  return count;
}

/**
 * The gradients of the mean loss of some examples. A model that takes fewer at once is run several times;
 * the loss of a language model is the mean over tokens, so that its runs count by their tokens.
 */
async function batchGradients(
  model: GradientModel,
  { dataset, indices }: Calibration,
  task: Task,
): Promise<Gradients> {
  let sums: Map<string, Floats> | undefined;
  let total = 0;
  for await (const batch of batches(dataset, indices, indices.length, model.inputs)) {
    const { gradients } = await model.run(batch.feeds, await batchTarget(model, task, batch));
    if (batch.size === indices.length) return gradients;
    const share = task === 'lm' ? predictedTokens(batch) : batch.size;
    total += share;
    sums ??= new Map([...gradients].map(([name, { length }]) => [name, new Float64Array(length)]));
    for (const [name, sum] of sums) addShare(sum, gradients.get(name) ?? [], share);
  }
  if (!sums) throw new Error('a batch has examples');
  for (const sum of sums.values()) for (let i = 0; i < sum.length; i++) sum[i] /= total || 1;
  return sums;
}

const predictedTokens = ({ labels }: Batch): number =>
  labels.reduce<number>(
    (n, ids) => n + (typeof ids === 'object' ? Math.max(0, ids.data.length - 1) : 0),
    0,
  );

function addShare(sum: Floats, gradient: ArrayLike<number>, share: number): void {
  for (let i = 0; i < sum.length; i++) sum[i] += share * gradient[i];
}

/** One example at a time, or many in one run where the graph tells them apart. */
async function addSamples(
  model: GradientModel,
  examples: Calibration,
  options: ImportanceOptions,
  add: Add,
): Promise<number> {
  const { dataset, indices } = examples;
  const largest = Math.max(...model.parameters.map((p) => model.values.get(p.name)?.length ?? 0));
  const size = Math.min(largestRun, Math.floor(perSampleBudget / largest));
  if (size < 2 || !(await tellsSamplesApart(model, examples, options)))
    return addBatches(model, examples, { ...options, batchSize: 1 }, add);
  let done = 0;
  for await (const batch of batches(dataset, indices, size, model.inputs)) {
    const step = await model.runSquares(batch.feeds, await sampleTarget(model, options, batch));
    // A graph may tell two samples apart, and more not.
    if (step) add(step.gradients, 'as it is');
    else {
      const some = { dataset, indices: indices.slice(done, done + batch.size) };
      await addBatches(model, some, { ...options, batchSize: 1, progress: () => {} }, add);
    }
    done += batch.size;
    options.progress(done, indices.length);
  }
  return indices.length;
}

const sampleTarget = (model: GradientModel, { task }: ImportanceOptions, batch: Batch) =>
  batchTarget(model, task, batch, 'sample');

/**
 * Whether squares of two examples from one run are those of two runs. Not so where the graph moves the
 * batch to another axis, which no rule can see.
 */
async function tellsSamplesApart(
  model: GradientModel,
  { dataset, indices }: Calibration,
  options: ImportanceOptions,
): Promise<boolean> {
  const two = indices.slice(0, 2);
  if (two.length < 2) return false;
  const apart = new Map<string, Float64Array>();
  for await (const batch of batches(dataset, two, 1, model.inputs)) {
    const { gradients } = await model.run(batch.feeds, await sampleTarget(model, options, batch));
    for (const [name, gradient] of gradients) {
      const sum = apart.get(name) ?? new Float64Array(gradient.length);
      for (let i = 0; i < sum.length; i++) sum[i] += gradient[i] ** 2;
      apart.set(name, sum);
    }
  }
  for await (const batch of batches(dataset, two, 2, model.inputs)) {
    if (batch.size < 2 || Object.values(batch.feeds)[0].dims[0] !== 2) return false;
    const step = await model.runSquares(batch.feeds, await sampleTarget(model, options, batch));
    if (!step) return false;
    return [...step.gradients].every(([name, squares]) => isClose(squares, apart.get(name)));
  }
  return false;
}

function isClose(a: Floats, b: Floats | undefined): boolean {
  if (b?.length !== a.length) return false;
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < a.length; i++) {
    difference = Math.max(difference, Math.abs(a[i] - b[i]));
    scale = Math.max(scale, Math.abs(b[i]));
  }
  return difference <= tolerance * scale;
}
