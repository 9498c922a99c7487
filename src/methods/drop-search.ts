/** What searches under --max-drop have in common. */
import { usageError } from '../errors.js';
import { evaluateModels } from '../evaluate/evaluate.js';
import { higherIsBetter, type Metrics } from '../evaluate/metrics.js';
import type { Model } from '../onnx/index.js';
import { openPart } from '../runtime/part.js';
import { withSession } from '../runtime/session.js';
import type { Context } from './method.js';

/**
 * Refuses a search that has nothing to go by, before any work is done.
 * @param flag that asks for the search
 * @throws {ResectError} exit 2
 */
export function refuseDropSearch(flag: string, { maxDrop, test, calibration }: Context): void {
  if (Object.keys(maxDrop ?? {}).length === 0)
    throw usageError(`${flag} needs to know what may be lost.`, {
      expected: '--max-drop METRIC=AMOUNT, e.g. accuracy=0.01',
      hint: 'A share of the original, such as 5%, is checked in the end but not searched by.',
    });
  if (!test && !calibration)
    throw usageError(`${flag} has no data to measure a loss on.`, {
      expected: '--eval DATA, or --calib DATA and a metric such as cosine=0.01',
    });
}

/** The data that `keepsWithin` goes by, for people. */
export const searchData = ({ test }: Context): string =>
  test ? 'the evaluation data: measure once more on other data' : '--calib';

/**
 * The most steps that hold, by bisection, if more steps never make better; all are tried first.
 * @param holds asked of 1 to `total` steps
 */
export async function mostSteps(
  total: number,
  holds: (steps: number) => Promise<boolean>,
): Promise<number> {
  let [low, high] = [0, total];
  if (total > 0 && (await holds(total))) return total;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await holds(middle)) low = middle;
    else high = middle;
  }
  return low;
}

/** Whether no metric of `maxDrop` gets worse than it says. */
export async function keepsWithin(
  original: Model,
  made: Model,
  { test, calibration, maxDrop = {}, threads }: Context,
): Promise<boolean> {
  const data = test ?? calibration;
  if (!data) throw new Error('a search without data');
  const task = test?.task ?? 'none';
  const { dataset, indices } = data;
  const [first, second] = await Promise.all(
    [original, made].map((model) => openPart(model, model.proto)),
  );
  const { metrics, fidelity } = await withSession(
    first.bytes,
    { threads, folder: first.folder },
    (reference) =>
      withSession(second.bytes, { threads, folder: second.folder }, (candidate) =>
        evaluateModels([reference, candidate], { kind: 'data', dataset, indices }, { task }),
      ),
  );
  const [before = {}, after = {}] = metrics;
  return Object.entries(maxDrop).every(
    ([metric, allowed]) => worseBy(metric, before, { ...fidelity[0], ...after }) <= allowed,
  );
}

function worseBy(metric: string, before: Metrics, after: Metrics): number {
  if (!Object.hasOwn(after, metric))
    throw usageError('--max-drop names a metric that was not measured.', {
      expected: Object.keys(after).join(', '),
      got: metric,
      hint: 'Give labelled data with --eval, or choose another metric.',
    });
  // Outputs are compared with the original's, which are perfect.
  const ideal = higherIsBetter[metric] ? 1 : 0;
  return (higherIsBetter[metric] ? 1 : -1) * ((before[metric] ?? ideal) - after[metric]);
}
