import type { GradientModel, GradientStep } from '../../autodiff/gradients.js';
import { batchTarget } from '../../autodiff/targets.js';
import { type Batch, batches, type Task } from '../../data/index.js';
import type { Calibration } from '../method.js';
import type { FloatArray } from './dampen.js';
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
      { shape, values: new Float32Array(model.values.get(name)?.length ?? 0) as FloatArray },
    ]),
  );
  const add = (step: GradientStep, term: (g: number) => number) => {
    for (const [name, gradient] of step.gradients) {
      const { values } = sums.get(name) as { values: FloatArray };
      for (let i = 0; i < values.length; i++) values[i] += term(gradient[i]);
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

type Add = (step: GradientStep, term: (g: number) => number) => void;

const square = (g: number) => g * g;
const same = (g: number) => g;

async function addBatches(
  model: GradientModel,
  { dataset, indices }: Calibration,
  { task, kind, batchSize, progress }: ImportanceOptions,
  add: Add,
): Promise<number> {
  let done = 0;
  let count = 0;
  for await (const batch of batches(dataset, indices, batchSize, model.inputs)) {
    add(
      await model.run(batch.feeds, await batchTarget(model, task, batch)),
      kind === 'lfssd-abs' ? Math.abs : square,
    );
    count++;
    done += batch.size;
    progress(done, indices.length);
  }
  return count;
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
    if (!step) throw new Error('a graph that told samples apart still does');
    add(step, same);
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

function isClose(a: FloatArray, b: FloatArray | undefined): boolean {
  if (b?.length !== a.length) return false;
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < a.length; i++) {
    difference = Math.max(difference, Math.abs(a[i] - b[i]));
    scale = Math.max(scale, Math.abs(b[i]));
  }
  return difference <= tolerance * scale;
}
