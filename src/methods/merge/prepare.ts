import { z } from 'zod';
import { inlineFunctions } from '../../graph/functions.js';
import { foldBatchNorm } from '../compress/formats/fold-batch-norm.js';
import { requireOpset } from '../opset.js';
import type { LabelledModel } from './models.js';
import { alignOpsets } from './pair/align-opsets.js';
import { type PairedTensor, pairModels } from './pair/pair.js';
import { shareAlike } from './pair/share-alike.js';

export const bnParameter = z
  .enum(['merge', 'fold', 'reestimate'])
  .default('merge')
  .describe(
    'BatchNormalizations: interpolated like weights, running statistics included; folded into the layers before them first; or their statistics taken anew from the --calib data by the merged model',
  );

/** Models that are ready to be merged. */
export interface Prepared {
  models: LabelledModel[];
  tensors: PairedTensor[];
  notes: string[];
}

/**
 * Brings the models to one opset, folds what is to be folded, takes apart what only one of them shares, and
 * pairs their tensors. Changes the models in memory.
 * @param models the first is the one whose graph the result has
 * @param dynamic whether the graph is to be extended by ops of opset 13
 * @throws {ResectError} exit 5 naming the first difference
 */
export async function prepare(
  models: LabelledModel[],
  selects: (name: string) => boolean,
  { bn, dynamic = false }: { bn: z.infer<typeof bnParameter>; dynamic?: boolean },
): Promise<Prepared> {
  alignOpsets(models);
  for (const { model } of models) {
    if (dynamic) requireOpset(model, 13);
    if (dynamic || bn === 'fold') Object.assign(model.proto, inlineFunctions(model.proto));
    if (bn === 'fold') await foldBatchNorm(model);
  }
  const shared = await shareAlike(models, selects);
  const { tensors, notes } = await pairModels(models, selects);
  return { models, tensors, notes: [...shared, ...notes] };
}
