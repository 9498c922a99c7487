import type { z } from 'zod';
import { inFile } from '../../../errors.js';
import { largestRead } from '../../../evaluate/measure.js';
import type { Method, Needs } from '../../method.js';
import { columns, type MergedTensor, measureDistances, reportOf } from '../distance.js';
import type { LabelledModel } from '../models.js';
import type { PairedTensor } from '../pair/pair.js';
import { planMerge } from '../plan.js';
import { type bnParameter, prepare } from '../prepare.js';
import { type MergeTensor, mergeInto } from './merge-into.js';

/** What a static merge knows before it sees a tensor. */
export interface StaticContext {
  /** In the order given; a base last. */
  models: readonly LabelledModel[];
  tensors: readonly PairedTensor[];
  seed: number;
}

type WithBn = z.ZodObject<{ bn: typeof bnParameter }>;

/** A static merge: how the values of one tensor follow from those of all models. */
export interface StaticMerge<S extends WithBn>
  extends Pick<
    Method<S, MergedTensor>,
    'name' | 'summary' | 'references' | 'parameters' | 'examples'
  > {
  /** Whether it merges two models, or as many as there are. */
  models: 'one' | 'some';
  /** Whether it goes by what the models have become from a common base. */
  fromBase: boolean;
  /** Whether a merged value depends on nothing but the models' values in its place. */
  elementwise: boolean;
  /**
   * Checks the parameters and makes the function that merges a tensor: the values of the models come
   * in their order, those of the base last.
   */
  merger(parameters: z.infer<S>, context: StaticContext): MergeTensor | Promise<MergeTensor>;
}

/** The method of a static merge. */
export function staticMethod<S extends WithBn>({
  models,
  fromBase,
  elementwise,
  merger,
  ...method
}: StaticMerge<S>): Method<S, MergedTensor> {
  return {
    ...method,
    columns,

    needs({ bn }): Needs {
      return {
        calibration: bn === 'reestimate' ? 'required' : 'none',
        others: models,
        ...(fromBase && { base: 'required' as const }),
      };
    },

    plan: (model, given, { selects, others = [], base }) =>
      planMerge(model, base ? [...others, base] : others, selects, given),

    async apply(model, given, context) {
      const { others = [], base, selects, seed } = context;
      const all = [model, ...others, ...(base ? [base] : [])];
      const labelled = all.map((m) => ({ model: m, label: m.path ?? '' }));
      const { tensors, notes } = await prepare(labelled, selects, given);
      const bytes = all.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      const { layers, differing } =
        bytes > 2 * largestRead
          ? { layers: tensors.map(reportOf), differing: tensors }
          : await measureDistances(labelled, tensors);
      if (differing.length === 0) notes.push('The models are the same: there is nothing to merge.');
      const merge = await merger(given, { models: labelled, tensors: differing, seed });
      mergeInto(labelled, differing, merge, { elementwise });
      if (given.bn === 'reestimate') {
        // Loaded here, so that merges need no runtime.
        const { reestimateBatchNorm } = await import('../batch-norm.js');
        notes.push(...(await inFile(model.path ?? '', () => reestimateBatchNorm(model, context))));
      }
      return { layers, changedTensors: differing.map(({ name }) => name), notes };
    },
  };
}
