import type { Batch, Task, TensorData } from '../data/index.js';
import { dataError } from '../errors.js';
import type { GradientModel, Target } from './gradients.js';
import type { LossName } from './losses.js';
import type { Floats } from './optimizer.js';

/** The loss that a task is trained with. */
export function taskLoss(task: Task): LossName {
  if (task === 'regression') return 'mse';
  if (task === 'none')
    throw dataError('The loss of unlabelled data is not defined.', {
      hint: 'Say what the model does with --task, and give labels.',
    });
  return 'cross-entropy';
}

/**
 * What a batch is compared with, for a model that `taskLoss` is the loss of.
 * @param per `batch`: weights that make the loss a mean over the batch (over its tokens, for language
 *   models); `sample`: over each sample apart
 * @throws {ResectError} exit 6 for labels that the task has no use for
 */
export async function batchTarget(
  model: GradientModel,
  task: Task,
  batch: Batch,
  per: 'batch' | 'sample' = 'batch',
): Promise<Target> {
  const [rows, width] = await model.rows(batch.feeds);
  const first = model.values.values().next().value;
  const floats = (n: number) =>
    first instanceof Float64Array ? new Float64Array(n) : new Float32Array(n);
  const weight = floats(rows);
  const share = per === 'batch' ? 1 / batch.size : 1;
  if (task === 'lm') return tokens(batch, rows, weight, per);
  // A model without a batch axis has all its rows of one example.
  const each = isOneExample(batch) ? rows : 1;
  weight.fill(share, 0, batch.size * each);
  if (task === 'none') return { weight };
  if (task === 'classification') {
    const target = new BigInt64Array(rows);
    for (let i = 0; i < batch.size; i++) target[i] = BigInt(classOf(batch.labels[i], width));
    return { weight, target: { dtype: 'int64', dims: [rows], data: target } };
  }
  weight.fill(share / each, 0, batch.size * each);
  const size = each * width;
  const target = floats(rows * width);
  for (let i = 0; i < batch.size; i++) target.set(values(batch.labels[i], size), i * size);
  const dtype = target instanceof Float64Array ? 'float64' : 'float32';
  return { weight, target: { dtype, dims: [rows, width], data: target } };
}

/** The logits at position t predict token t + 1. */
function tokens(batch: Batch, rows: number, weight: Floats, per: 'batch' | 'sample'): Target {
  const target = new BigInt64Array(rows);
  const sequences = batch.labels.map((ids) => {
    if (typeof ids === 'object') return ids.data;
    throw dataError('A language model needs its tokens as labels.', {
      hint: 'Choose another --task.',
    });
  });
  const length = isOneExample(batch) ? rows : rows / batchAxis(batch);
  const total = sequences.reduce((n, ids) => n + Math.max(0, ids.length - 1), 0);
  for (const [b, ids] of sequences.entries()) {
    if (ids.length > length)
      throw dataError(
        'The model is not a language model: its output does not pair with its tokens.',
        {
          expected: 'ids [batch, sequence] in, logits [batch, sequence, vocabulary] out',
          hint: 'Choose another --task.',
        },
      );
    for (let t = 1; t < ids.length; t++) {
      target[b * length + t - 1] = BigInt(ids[t]);
      weight[b * length + t - 1] = 1 / (per === 'batch' ? total : ids.length - 1);
    }
  }
  return { weight, target: { dtype: 'int64', dims: [rows], data: target } };
}

/** Rows of the feeds, which a frozen batch has more of than examples. */
const batchAxis = ({ feeds }: Batch): number =>
  Object.values(feeds).find(({ dims }) => dims.length > 0)?.dims[0] ?? 1;

/** Whether the feeds have no batch axis: a sequence of tokens, or the features of one example. */
const isOneExample = ({ feeds, size }: Batch): boolean =>
  size === 1 && Object.values(feeds).every(({ dims }) => dims.length < 2);

function classOf(label: number | TensorData | undefined, classes: number): number {
  if (typeof label === 'number' && Number.isInteger(label) && label >= 0 && label < classes)
    return label;
  throw dataError('Classification needs one class number as label.', {
    expected: `0 to ${classes - 1}`,
    got: label === undefined ? 'no label' : typeof label === 'number' ? `${label}` : 'an array',
  });
}

function values(label: number | TensorData | undefined, width: number): ArrayLike<number> {
  const found =
    typeof label === 'number'
      ? [label]
      : Array.from((label?.data ?? []) as ArrayLike<number>, Number);
  if (label !== undefined && found.length === width) return found;
  throw dataError('Regression needs as many target values as the model puts out.', {
    expected: `${width} values an example`,
    got: label === undefined ? 'no label' : `${found.length}`,
  });
}
