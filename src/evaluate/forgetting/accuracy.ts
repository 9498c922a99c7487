import type { GradientModel } from '../../autodiff/gradients.js';
import type { Floats } from '../../autodiff/optimizer.js';
import { batchTarget } from '../../autodiff/targets.js';
import { batches, type Dataset, type Task } from '../../data/index.js';

/** Examples at once. */
const size = 64;

/**
 * Share of rows, examples or tokens, whose largest score is that of the target, with the model's
 * present values.
 */
export async function accuracyOf(
  model: GradientModel,
  { dataset, indices, task }: { dataset: Dataset; indices: readonly number[]; task: Task },
): Promise<number> {
  let [right, rows] = [0, 0];
  for await (const batch of batches(dataset, indices, size, model.inputs)) {
    const { target, weight } = await batchTarget(model, task, batch);
    const { data } = await model.predict(batch.feeds);
    const scores = data as Floats;
    const labels = target?.data as BigInt64Array;
    const width = scores.length / labels.length;
    for (const [i, label] of labels.entries()) {
      if (!weight?.[i]) continue;
      const best = scores[i * width + Number(label)];
      let isBest = true;
      for (let j = i * width; j < (i + 1) * width; j++) if (!(scores[j] <= best)) isBest = false;
      rows++;
      if (isBest) right++;
    }
  }
  return right / rows;
}
