import type { GradientModel } from '../../autodiff/gradients.js';
import type { Floats } from '../../autodiff/optimizer.js';
import { type Batch, batches, type Dataset, type Task } from '../../data/index.js';
import { dataError } from '../../errors.js';
import { isRight } from './rows.js';

/** Examples at once. */
const size = 64;

/**
 * Share of examples, or of the tokens of a language model, whose largest score is that of the target,
 * with the model's present values. Of equal scores the first counts as the largest.
 * @throws {ResectError} exit 6 for labels that are no classes
 */
export async function accuracyOf(
  model: GradientModel,
  { dataset, indices, task }: { dataset: Dataset; indices: readonly number[]; task: Task },
): Promise<number> {
  let [right, rows] = [0, 0];
  for await (const batch of batches(dataset, indices, size, model.inputs)) {
    const { data, dims } = await model.predict(batch.feeds);
    const scores = data as Floats;
    const perExample = scores.length / dims[0];
    const targets = task === 'lm' ? nextTokens(batch) : classes(batch);
    for (const [i, labels] of targets.entries()) {
      const width = task === 'lm' ? dims[dims.length - 1] : perExample;
      for (const [t, label] of labels.entries()) {
        const at = i * perExample + t * width;
        rows++;
        if (isRight(scores.subarray(at, at + width), label)) right++;
      }
    }
  }
  return right / rows;
}

const classes = ({ labels }: Batch): number[][] =>
  labels.map((label) => {
    if (typeof label === 'number') return [label];
    throw dataError('Accuracy needs one class number as label.', {
      got: label === undefined ? 'no label' : 'an array',
    });
  });

/** The logits at position t predict token t + 1. */
const nextTokens = ({ labels }: Batch): number[][] =>
  labels.map((ids) => (typeof ids === 'object' ? Array.from(ids.data, Number).slice(1) : []));
