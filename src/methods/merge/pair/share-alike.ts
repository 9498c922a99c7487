import { Origins } from '../../../autodiff/normalize/origins.js';
import { unshare } from '../../../autodiff/normalize/unshare.js';
import { inlineFunctions } from '../../../graph/functions.js';
import type { TensorProto } from '../../../onnx/index.js';
import type { LabelledModel } from '../models.js';
import { matchStructures } from './match.js';
import { isMergeable, sidesOf } from './pair.js';

/**
 * Splits tensors that one model shares and another does not, in place: torch stores equal tensors once, as the
 * scales of all normalisations that are still 1, and which are equal differs from training to training.
 * Tensors that all models share alike stay shared.
 * @returns what the user should know
 * @throws {ResectError} exit 5 as `pairModels`
 */
export async function shareAlike(
  models: readonly LabelledModel[],
  selects: (name: string) => boolean,
): Promise<string[]> {
  const split = new Map<string, number>();
  // To split in one model may show what to split in the next.
  for (let pass = 0; pass < models.length; pass++) {
    const unlike = await unlikeShared(models, selects);
    if (unlike.every(({ size }) => size === 0)) break;
    for (const [i, { model, label }] of models.entries()) {
      if (unlike[i].size === 0) continue;
      const isTied = (tensor: TensorProto) => !unlike[i].has(tensor);
      const plain = inlineFunctions(model.proto);
      const apart = unshare(plain, isTied, new Origins(), { keepLayers: false });
      Object.assign(model.proto, apart.model);
      split.set(label, (split.get(label) ?? 0) + unlike[i].size);
    }
  }
  return [...split].map(([label, count]) =>
    count === 1
      ? `A tensor that ${label} stores once is several in another model: it was taken apart.`
      : `${count} tensors that ${label} stores once are several in another model: they were taken apart.`,
  );
}

/** Of each model, the tensors that stand where another model has several. */
async function unlikeShared(
  models: readonly LabelledModel[],
  selects: (name: string) => boolean,
): Promise<Set<TensorProto>[]> {
  const [first, ...others] = await sidesOf(models);
  const unlike = models.map(() => new Set<TensorProto>());
  for (const [i, other] of others.entries()) {
    const partners = new Map<TensorProto, TensorProto>();
    const back = new Map<TensorProto, TensorProto>();
    for (const pair of matchStructures(first, other).constants) {
      const [a, b] = [pair.first.tensor, pair.other.tensor];
      if (!pair.step || !isMergeable(pair.first, selects) || pair.other.fixed) continue;
      if ((partners.get(a) ?? b) !== b) unlike[0].add(a);
      if ((back.get(b) ?? a) !== a) unlike[i + 1].add(b);
      partners.set(a, b);
      back.set(b, a);
    }
  }
  return unlike;
}
