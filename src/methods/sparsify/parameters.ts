import { z } from 'zod';
import { usageError } from '../../errors.js';
import { type Pattern, parsePattern } from './pattern.js';
import type { PruneOptions } from './prune.js';

export const parameters = z.object({
  sparsity: z
    .number()
    .min(0)
    .lt(1)
    .optional()
    .describe('fraction of weights to set to zero in every row, e.g. 0.6'),
  nm: z
    .string()
    .regex(/^\d+:\d+$/, 'two numbers such as 2:4')
    .optional()
    .describe('n zeros in every m consecutive inputs, e.g. 2:4'),
  init: z
    .enum(['wanda', 'magnitude', 'sparsegpt'])
    .default('wanda')
    .describe('score that the first mask is made by'),
  refine: z
    .enum(['dsnot', 'none'])
    .optional()
    .describe('swap weights until the mean output is restored (default dsnot; none with --update)'),
  cycles: z.int().min(0).default(50).describe('most swaps per row'),
  threshold: z
    .number()
    .min(0)
    .optional()
    .describe(
      'stop refining a row at this mean output error (default 0.1 per sample, 0.1/2048 per token)',
    ),
  thresholdUnit: z
    .enum(['sample', 'token'])
    .default('token')
    .describe(
      'what the mean output error is summed over: a whole sample, as the authors do, or one token',
    ),
  varPower: z
    .number()
    .min(0)
    .default(1)
    .describe('power of the input variance that divides the score to grow'),
  sameSign: z.boolean().default(false).describe('stop a row before the sign of its error turns'),
  accept: z
    .enum(['always', 'loss'])
    .default('loss')
    .describe('make every swap that DSnoT proposes, or only those that lower the output error'),
  update: z
    .boolean()
    .default(false)
    .describe("SparseGPT's update of the kept weights (with --init sparsegpt)"),
  biasCorrect: z
    .boolean()
    .default(false)
    .describe('repair the mean output through the bias, in closed form'),
  calibMode: z
    .enum(['oneshot', 'sequential'])
    .default('oneshot')
    .describe(
      'statistics from the dense model in one pass, or segment by segment behind pruned ones',
    ),
  store: z
    .enum(['dense', 'sparse', 'auto'])
    .default('dense')
    .describe('how pruned tensors are written; auto takes the smaller form'),
  keepHead: z.boolean().default(true).describe('leave output heads over a vocabulary as they are'),
});

export type SparsifyParameters = z.infer<typeof parameters>;

export const patternOf = ({ sparsity, nm }: SparsifyParameters): Pattern =>
  parsePattern(nm ?? String(sparsity ?? ''));

const refines = ({ refine, update }: SparsifyParameters): boolean =>
  (refine ?? (update ? 'none' : 'dsnot')) === 'dsnot';

/** Whether anything but the weights themselves decides the result. */
export const usesStatistics = (given: SparsifyParameters): boolean =>
  given.init !== 'magnitude' || refines(given) || given.biasCorrect;

export function pruneOptions(given: SparsifyParameters): PruneOptions {
  const threshold = given.threshold ?? (given.thresholdUnit === 'token' ? 0.1 / 2048 : 0.1);
  const { cycles, varPower, sameSign, thresholdUnit, accept, update } = given;
  return {
    pattern: patternOf(given),
    criterion: given.init,
    dsnot: refines(given) ? { cycles, threshold, varPower, sameSign } : undefined,
    thresholdUnit,
    accept,
    update,
  };
}

/** @throws {ResectError} exit 2 for parameters that exclude each other. */
export function checkCombination(given: SparsifyParameters): void {
  if ((given.sparsity === undefined) === (given.nm === undefined)) {
    throw usageError('Say how sparse: --sparsity or --nm, one of the two.', {
      expected: 'e.g. --sparsity 0.6, or --nm 2:4',
    });
  }
  if (given.update && given.init !== 'sparsegpt') {
    throw usageError("--update is SparseGPT's.", {
      expected: '--init sparsegpt',
      got: `--init ${given.init}`,
    });
  }
  if (given.update && refines(given)) {
    throw usageError('--update and --refine dsnot exclude each other.', {
      hint: 'DSnoT refines masks of unchanged weights: leave out one of the two.',
    });
  }
}
