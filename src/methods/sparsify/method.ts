import { z } from 'zod';
import { modelError, usageError } from '../../errors.js';
import { inlineFunctions } from '../../graph/functions.js';
import { Graph } from '../../graph/graph.js';
import { findLinearLayers, type LinearLayer } from '../../graph/linear-layers.js';
import type { Model } from '../../onnx/index.js';
import type { Context, LayerReport, Method } from '../method.js';
import { parsePattern, type Pattern, patternMisfit, zerosPerRow } from './pattern.js';
import type { OutputError, PruneOptions } from './prune.js';

const parameters = z.object({
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
  init: z.enum(['wanda', 'magnitude', 'sparsegpt']).default('wanda').describe('score that the first mask is made by'),
  refine: z
    .enum(['dsnot', 'none'])
    .optional()
    .describe('swap weights until the mean output is restored (default dsnot; none with --update)'),
  cycles: z.int().min(0).default(50).describe('most swaps per row'),
  threshold: z
    .number()
    .min(0)
    .optional()
    .describe('stop refining a row at this mean output error (default 0.1 per sample, 0.1/2048 per token)'),
  thresholdUnit: z
    .enum(['sample', 'token'])
    .default('token')
    .describe('what the mean output error is summed over: a whole sample, as the authors do, or one token'),
  varPower: z.number().min(0).default(1).describe('power of the input variance that divides the score to grow'),
  sameSign: z.boolean().default(false).describe('stop a row before the sign of its error turns'),
  accept: z
    .enum(['always', 'loss'])
    .default('loss')
    .describe('keep every refined row, or only those whose output error went down'),
  update: z.boolean().default(false).describe("SparseGPT's update of the kept weights (with --init sparsegpt)"),
  biasCorrect: z.boolean().default(false).describe('repair the mean output through the bias, in closed form'),
  calibMode: z
    .enum(['oneshot', 'sequential'])
    .default('sequential')
    .describe('statistics from the dense model in one pass, or segment by segment behind pruned ones'),
  store: z
    .enum(['dense', 'sparse', 'auto'])
    .default('dense')
    .describe('how pruned tensors are written; auto takes the smaller form'),
  keepHead: z.boolean().default(true).describe('leave output heads over a vocabulary as they are'),
});

export type SparsifyParameters = z.infer<typeof parameters>;

/** What sparsify did to one layer. */
export interface SparsifyLayer extends LayerReport {
  /** Fraction of zeros. */
  sparsity?: { before: number; after: number };
  rowsRefined?: number;
  rowsRefused?: number;
  swaps?: number;
  /** Output error of the first mask and of the refined one. */
  error?: { initial: OutputError; final: OutputError };
  seconds?: number;
  notes?: string[];
}

export const sparsify: Method<typeof parameters, SparsifyLayer> = {
  name: 'sparsify',
  summary: 'Set weights to zero: magnitude, Wanda or SparseGPT masks, refined by DSnoT, without retraining.',
  references: [
    { title: 'Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs', arxiv: '2310.08915' },
    { title: 'A Simple and Effective Pruning Approach for Large Language Models (Wanda)', arxiv: '2306.11695' },
    { title: 'SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot', arxiv: '2301.00774' },
  ],
  parameters,
  columns: [
    { header: 'zeros', value: ({ sparsity }) => (sparsity ? `${(100 * sparsity.after).toFixed(1)} %` : '') },
    { header: 'swaps', value: ({ swaps }) => (swaps === undefined ? '' : String(swaps)) },
    { header: 'error', value: ({ error }) => (error ? errorChange(error.initial.total, error.final.total) : '') },
    { header: 'mean part', value: ({ error }) => (error ? errorChange(error.initial.mean, error.final.mean) : '') },
  ],
  examples: [
    '<%= config.bin %> sparsify model.onnx -o sparse.onnx --sparsity 0.5 --calib train.npz',
    '<%= config.bin %> sparsify model.onnx -o sparse.onnx --nm 2:4 --calib card.yaml --eval test.yaml',
    '<%= config.bin %> sparsify model.onnx -o sparse.onnx --sparsity 0.3 --init magnitude --refine none',
    '<%= config.bin %> sparsify model.onnx --sparsity 0.6 --dry-run',
  ],

  needs(given) {
    if (usesStatistics(given)) return { calibration: 'required' };
    return { calibration: 'optional' };
  },

  plan(model, given, { selects }) {
    return planLayers(model, given, selects).map(({ report }) => report);
  },

  async apply(model, given, context) {
    checkCombination(given);
    const planned = planLayers(model, given, context.selects);
    if (planned.every(({ report }) => report.status === 'skipped')) throw nothingToDo(planned.map((p) => p.report));
    // Loaded here, so that plans and help need no runtime.
    const { sparsifyModel } = await import('./sparsify.js');
    return sparsifyModel(model, given, planned, context);
  },
};

const errorChange = (from: number, to: number): string =>
  from === to ? from.toFixed(3) : `${from.toFixed(3)} > ${to.toFixed(3)}`;

/** A linear layer and what is to become of it. */
export interface PlannedLayer {
  layer: LinearLayer;
  report: SparsifyLayer;
}

function planLayers(model: Model, given: SparsifyParameters, selects: Context['selects']): PlannedLayer[] {
  const pattern = patternOf(given);
  return findLinearLayers(new Graph(inlineFunctions(model.proto))).map((layer) => {
    const reason = skipReason(layer, given, pattern, selects);
    const { name, op, weight } = layer;
    const shape: [number, number] | undefined = weight && [weight.rows, weight.cols];
    return { layer, report: { name, op, shape, status: reason ? 'skipped' : 'changed', reason } };
  });
}

function skipReason(layer: LinearLayer, given: SparsifyParameters, pattern: Pattern, selects: Context['selects']) {
  if (!selects(layer.name)) return 'not selected';
  if (layer.skip || !layer.weight) return layer.skip ?? 'no weight';
  if (layer.isHead && given.keepHead) return 'output head (--no-keep-head prunes it)';
  const misfit = patternMisfit(pattern, layer.weight.cols);
  if (misfit) return misfit;
  if (zerosPerRow(pattern, layer.weight.cols) === 0) return `too few inputs (${layer.weight.cols}) for this sparsity`;
  if (usesStatistics(given) && inLoop(layer)) return 'inside a loop: no statistics (magnitude needs none)';
  return undefined;
}

function inLoop({ scope }: LinearLayer): boolean {
  for (let s = scope; s.parent && s.owner; s = s.parent) if (s.owner.opType !== 'If') return true;
  return false;
}

export const patternOf = ({ sparsity, nm }: SparsifyParameters): Pattern => parsePattern(nm ?? String(sparsity ?? ''));

const refines = ({ refine, update }: SparsifyParameters): boolean => (refine ?? (update ? 'none' : 'dsnot')) === 'dsnot';

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

function checkCombination(given: SparsifyParameters): void {
  if ((given.sparsity === undefined) === (given.nm === undefined)) {
    throw usageError('Say how sparse: --sparsity or --nm, one of the two.', { expected: 'e.g. --sparsity 0.6, or --nm 2:4' });
  }
  if (given.update && given.init !== 'sparsegpt') {
    throw usageError("--update is SparseGPT's.", { expected: '--init sparsegpt', got: `--init ${given.init}` });
  }
  if (given.update && refines(given)) {
    throw usageError('--update and --refine dsnot exclude each other.', {
      hint: 'DSnoT refines masks of unchanged weights: leave out one of the two.',
    });
  }
}

function nothingToDo(layers: SparsifyLayer[]) {
  const reasons = new Map<string, number>();
  for (const { reason = '' } of layers) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  return modelError('There is no layer to prune.', {
    expected: 'at least one MatMul, Gemm or Conv with a constant weight',
    got: layers.length === 0 ? 'no linear layer' : [...reasons].map(([r, n]) => `${n} x ${r}`).join('; '),
    hint: 'See `resect inspect`; widen --include, or choose another pattern.',
  });
}
