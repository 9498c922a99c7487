import type { z } from 'zod';
import type { Model } from '../../onnx/index.js';
import type { Plan } from '../method.js';
import { type MergedTensor, reportOf } from './distance.js';
import { type bnParameter, prepare } from './prepare.js';

/** The tensors that a merge would change, without a look at their values. */
export async function planMerge(
  model: Model,
  others: readonly Model[],
  selects: (name: string) => boolean,
  { bn }: { bn: z.infer<typeof bnParameter> },
): Promise<Plan<MergedTensor>> {
  const labelled = [model, ...others].map((m) => ({ model: m, label: m.path ?? '' }));
  const { tensors, notes } = await prepare(labelled, selects, { bn });
  return { layers: tensors.map(reportOf), notes };
}
