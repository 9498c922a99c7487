import { modelError } from '../../errors.js';
import type { Graph } from '../../graph/graph.js';
import type { LinearLayer } from '../../graph/linear-layers.js';
import { findLinearLayers } from '../../graph/linear-layers.js';
import { isStandard } from '../../graph/nodes.js';
import { ancestors, descendants } from '../../graph/reach.js';
import type { NodeProto } from '../../onnx/index.js';
import type { Context } from '../method.js';
import { skipSharers } from '../planned.js';
import type { TernarizeLayer } from './layers.js';
import type { Settings } from './parameters.js';

/** A linear layer and what is to become of it. */
export interface PlannedLayer {
  layer: LinearLayer;
  report: TernarizeLayer;
}

/** Layers with fewer weights, or with fewer inputs, gain next to nothing and lose the most. */
const leastWeights = 4096;
const leastInputs = 32;

/** Ops whose weight a format can replace. */
const ops = new Set(['MatMul', 'Gemm', 'Conv']);

/** Every linear layer, with the reason where it is skipped. Looks at neither data nor weights. */
export function planLayers(
  graph: Graph,
  { firstLast, levels }: Pick<Settings, 'firstLast' | 'levels'>,
  selects: Context['selects'],
): PlannedLayer[] {
  const layers = findLinearLayers(graph);
  const edges = firstLast ? undefined : findEdges(graph, layers);
  const planned: PlannedLayer[] = layers.map((layer) => {
    const reason = skipReason(graph, layer, selects) ?? edges?.get(layer);
    const { name, op, weight } = layer;
    const shape = weight && [weight.rows, weight.cols];
    const status = reason ? 'skipped' : 'changed';
    return {
      layer,
      report: { name, op, ...(shape && { shape }), status, ...(reason ? { reason } : { levels }) },
    };
  });
  skipSharers(planned);
  return planned;
}

function skipReason(
  graph: Graph,
  { name, node, op, scope, skip, weight, input, isHead }: LinearLayer,
  selects: Context['selects'],
): string | undefined {
  if (!selects(name)) return 'not selected';
  if (skip || !weight) return skip ?? 'no weight';
  if (scope !== graph.root) return 'in the body of a control-flow node';
  if (!ops.has(op)) return `${op} weight`;
  if (node.input.indexOf(input) !== 0) return 'weight is not the second input';
  if (weight.view.dtype !== 'float32') return `computes in ${weight.view.dtype}`;
  if (weight.view.dequantization) return 'quantized already';
  if (isHead) return 'output head';
  if (weight.rows * weight.cols < leastWeights) return `fewer than ${leastWeights} weights`;
  if (weight.cols < leastInputs) return `fewer than ${leastInputs} inputs`;
  if (isRouter(graph, node)) return 'chooses experts';
  return undefined;
}

/** Layers that read the model's inputs through no other weight, and those that no other layer follows. */
function findEdges(graph: Graph, layers: readonly LinearLayer[]): Map<LinearLayer, string> {
  const nodes = new Set(layers.map(({ node }) => node));
  const isTable = (node: NodeProto) => {
    if (!isStandard(node) || node.opType !== 'Gather') return false;
    const table = graph.input(graph.root, node, 0)?.initializer;
    return table !== undefined && table.dims.length > 1;
  };
  const edges = new Map<LinearLayer, string>();
  for (const layer of layers) {
    if (layer.scope !== graph.root) continue;
    const { node } = layer;
    const before = [...ancestors(graph, graph.input(graph.root, node, 0))];
    const isFirst = !before.some((other) => nodes.has(other) || isTable(other));
    if (isFirst) edges.set(layer, 'first layer (--first-last takes it, too)');
    else if (![...descendants(graph, node)].some((other) => nodes.has(other)))
      edges.set(layer, 'last layer (--first-last takes it, too)');
  }
  return edges;
}

const carriesScores = new Set(['Add', 'Cast', 'Reshape', 'Softmax', 'Sigmoid', 'Identity']);

/** Whether its outputs are scores of which the highest choose what is computed next. */
function isRouter(graph: Graph, { output }: NodeProto): boolean {
  let value = graph.root.values.get(output[0]);
  while (value) {
    if (value.consumers.some(({ node }) => node.opType === 'TopK')) return true;
    const use = value.consumers.find(({ node }) => carriesScores.has(node.opType ?? ''));
    if (!use || use.scope !== graph.root) return false;
    value = graph.root.values.get(use.node.output[0]);
  }
  return false;
}

export function nothingToDo(layers: readonly TernarizeLayer[]) {
  const reasons = new Map<string, number>();
  for (const { reason = '' } of layers) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  return modelError('There is no layer whose weights could be packed.', {
    expected: 'at least one MatMul, Gemm or Conv with a constant float32 weight',
    got:
      layers.length === 0
        ? 'no linear layer'
        : [...reasons].map(([r, n]) => `${n} x ${r}`).join('; '),
    hint: 'See `resect inspect`; widen --include, or add --first-last.',
  });
}
