import { inlineFunctions } from '../../graph/functions.js';
import { Graph } from '../../graph/graph.js';
import type { Model } from '../../onnx/index.js';
import type { Method } from '../method.js';
import { checkCombination, parameters, usesStatistics } from './parameters.js';
import { nothingToDo, planLayers, type SparsifyLayer } from './plan.js';

export const sparsify: Method<typeof parameters, SparsifyLayer> = {
  name: 'sparsify',
  summary: 'Set weights to zero by magnitude, Wanda or SparseGPT, refined by DSnoT.',
  references: [
    {
      title: 'Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs',
      arxiv: '2310.08915',
    },
    {
      title: 'A Simple and Effective Pruning Approach for Large Language Models (Wanda)',
      arxiv: '2306.11695',
    },
    {
      title: 'SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot',
      arxiv: '2301.00774',
    },
  ],
  parameters,
  columns: [
    {
      header: 'zeros',
      value: ({ sparsity }) => (sparsity ? `${(100 * sparsity.after).toFixed(1)} %` : ''),
    },
    { header: 'swaps', value: ({ swaps }) => (swaps === undefined ? '' : String(swaps)) },
    {
      header: 'error',
      value: ({ error }) => (error ? errorChange(error.initial.total, error.final.total) : ''),
    },
    {
      header: 'mean part',
      value: ({ error }) => (error ? errorChange(error.initial.mean, error.final.mean) : ''),
    },
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
    checkCombination(given);
    const planned = planLayers(expanded(model), given, selects);
    return { layers: planned.map(({ report }) => report), notes: [] };
  },

  async apply(model, given, context) {
    checkCombination(given);
    const graph = expanded(model);
    const planned = planLayers(graph, given, context.selects);
    if (planned.every(({ report }) => report.status === 'skipped'))
      throw nothingToDo(planned.map((p) => p.report));
    // Loaded here, so that plans and help need no runtime.
    const { sparsifyModel } = await import('./sparsify.js');
    return sparsifyModel(model, graph, given, planned, context);
  },
};

/** The model's graph with local functions expanded; it shares the model's tensors. */
const expanded = ({ proto }: Model): Graph => new Graph(inlineFunctions(proto));

const errorChange = (from: number, to: number): string =>
  from === to ? from.toFixed(3) : `${from.toFixed(3)} > ${to.toFixed(3)}`;
