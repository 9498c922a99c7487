import { modelError } from '../../errors.js';
import type { Graph } from '../../graph/graph.js';
import { findLinearLayers, type LinearLayer } from '../../graph/linear-layers.js';
import type { Context, LayerReport } from '../method.js';
import { skipSharers } from '../planned.js';
import type { OutputError } from './output-meter.js';
import { patternOf, type SparsifyParameters, usesStatistics } from './parameters.js';
import { type Pattern, patternMisfit, zerosPerRow } from './pattern.js';

/** What sparsify did to one layer. */
export interface SparsifyLayer extends LayerReport {
  /** Fraction of zeros. */
  sparsity?: { before: number; after: number };
  rowsRefined?: number;
  swaps?: number;
  /** Swaps that would have made the output error larger. */
  refused?: number;
  /** Output error of the first mask and of the refined one. */
  error?: { initial: OutputError; final: OutputError };
  seconds?: number;
  notes?: string[];
}

/** A linear layer and what is to become of it. */
export interface PlannedLayer {
  layer: LinearLayer;
  report: SparsifyLayer;
}

/** Every linear layer, with the reason where it is skipped. Looks at neither data nor weights. */
export function planLayers(
  graph: Graph,
  given: SparsifyParameters,
  selects: Context['selects'],
): PlannedLayer[] {
  const pattern = patternOf(given);
  const planned: PlannedLayer[] = findLinearLayers(graph).map((layer) => {
    const reason = skipReason(layer, given, pattern, selects);
    const { name, op, weight } = layer;
    const shape: [number, number] | undefined = weight && [weight.rows, weight.cols];
    return { layer, report: { name, op, shape, status: reason ? 'skipped' : 'changed', reason } };
  });
  skipSharers(planned);
  return planned;
}

function skipReason(
  layer: LinearLayer,
  given: SparsifyParameters,
  pattern: Pattern,
  selects: Context['selects'],
) {
  if (!selects(layer.name)) return 'not selected';
  if (layer.skip || !layer.weight) return layer.skip ?? 'no weight';
  if (layer.isHead && given.keepHead) return 'output head (--no-keep-head prunes it)';
  const misfit = patternMisfit(pattern, layer.weight.cols);
  if (misfit) return misfit;
  if (zerosPerRow(pattern, layer.weight.cols) === 0)
    return `too few inputs (${layer.weight.cols}) for this sparsity`;
  if (usesStatistics(given) && inLoop(layer))
    return 'inside a loop: no statistics (magnitude needs none)';
  return undefined;
}

function inLoop({ scope }: LinearLayer): boolean {
  for (let s = scope; s.parent && s.owner; s = s.parent) if (s.owner.opType !== 'If') return true;
  return false;
}

export function nothingToDo(layers: SparsifyLayer[]) {
  const reasons = new Map<string, number>();
  for (const { reason = '' } of layers) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  return modelError('There is no layer to prune.', {
    expected: 'at least one MatMul, Gemm or Conv with a constant weight',
    got:
      layers.length === 0
        ? 'no linear layer'
        : [...reasons].map(([r, n]) => `${n} x ${r}`).join('; '),
    hint: 'See `resect inspect`; widen --include, or choose another pattern.',
  });
}
