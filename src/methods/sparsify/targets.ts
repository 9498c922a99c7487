import type { Graph } from '../../graph/graph.js';
import { cutIntoSegments, type Segment } from '../../graph/segments.js';
import type { WeightMatrix } from '../../graph/weight-matrix.js';
import type { TensorProto } from '../../onnx/index.js';
import type { SparsifyParameters } from './parameters.js';
import type { PlannedLayer } from './plan.js';

/** Bytes of Gram matrices held at once; a segment that needs more is passed through more than once. */
const gramBudget = 512e6;

/** The layers that one stored tensor serves; they are pruned as one. */
export interface Target {
  tensor: TensorProto;
  weight: WeightMatrix;
  planned: PlannedLayer[];
}

/** One target per stored tensor, in the order of its first layer. */
export function toTargets(planned: PlannedLayer[]): Target[] {
  const targets = new Map<TensorProto, Target>();
  for (const entry of planned) {
    const { weight } = entry.layer;
    if (entry.report.status === 'skipped' || !weight) continue;
    const target = targets.get(weight.view.tensor);
    if (target) target.planned.push(entry);
    else targets.set(weight.view.tensor, { tensor: weight.view.tensor, weight, planned: [entry] });
  }
  return [...targets.values()];
}

/** The stretches of the graph to calibrate one after the other: all at once, or between cut points. */
export function toSegments(
  graph: Graph,
  targets: Target[],
  mode: SparsifyParameters['calibMode'],
): Segment[] {
  const layers = targets.flatMap((t) => t.planned.map((p) => p.layer));
  if (mode === 'oneshot') return [{ layers }];
  const segments = cutIntoSegments(graph, layers);
  // A tensor that serves layers far apart can be pruned only once all of them have been seen.
  const merged: Segment[] = [];
  for (const segment of segments) {
    merged.push(segment);
    const first = merged.findIndex((earlier) =>
      targets.some(
        ({ planned }) =>
          planned.some((p) => earlier.layers.includes(p.layer)) &&
          planned.some((p) => segment.layers.includes(p.layer)),
      ),
    );
    if (first === merged.length - 1) continue;
    const joined = merged.splice(first);
    merged.push({
      layers: joined.flatMap((s) => s.layers),
      input: joined[0].input,
      output: segment.output,
    });
  }
  return merged;
}

/** Consecutive targets whose Gram matrices fit in memory together. */
export function withinBudget(targets: Target[], given: SparsifyParameters): Target[][] {
  if (given.init !== 'sparsegpt') return [targets];
  const groups: Target[][] = [];
  let room = 0;
  for (const target of targets) {
    const { cols, groups: convolutionGroups } = target.weight;
    const bytes = 4 * cols * cols * convolutionGroups;
    if (groups.length === 0 || bytes > room) {
      groups.push([]);
      room = gramBudget;
    }
    groups[groups.length - 1].push(target);
    room -= bytes;
  }
  return groups;
}
