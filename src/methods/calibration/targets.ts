import type { Graph } from '../../graph/graph.js';
import { cutIntoSegments, type Segment } from '../../graph/segments.js';
import type { WeightMatrix } from '../../graph/weight-matrix.js';
import type { TensorProto } from '../../onnx/index.js';
import type { Probe } from '../../runtime/instrument.js';
import type { Planned } from '../planned.js';
import { type Collected, collectStatistics, type Part } from './collect.js';

/** Bytes of Gram matrices held at once; a segment that needs more is passed through more than once. */
const gramBudget = 512e6;

/** The layers that one stored tensor serves; they are treated as one. */
export interface Target<P extends Planned = Planned> {
  tensor: TensorProto;
  weight: WeightMatrix;
  planned: P[];
}

/** One target per stored tensor of a layer that is not skipped, in the order of its first layer. */
export function toTargets<P extends Planned>(planned: P[]): Target<P>[] {
  const targets = new Map<TensorProto, Target<P>>();
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
export function toSegments<P extends Planned>(
  graph: Graph,
  targets: Target<P>[],
  mode: 'oneshot' | 'sequential',
): Segment[] {
  const layers = targets.flatMap((t) => t.planned.map((p) => p.layer));
  if (mode === 'oneshot') return [{ layers }];
  const segments = cutIntoSegments(graph, layers);
  // A tensor that serves layers far apart can be treated only once all of them have been seen.
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

/** Consecutive targets whose Gram matrices, where `wantsGram` says so, fit in memory together. */
export function withinBudget<P extends Planned>(
  targets: Target<P>[],
  wantsGram: (weight: WeightMatrix) => boolean,
): Target<P>[][] {
  const groups: Target<P>[][] = [];
  let room = 0;
  for (const target of targets) {
    const { weight } = target;
    const bytes = wantsGram(weight) ? 4 * weight.cols ** 2 * weight.groups : 0;
    if (groups.length === 0 || bytes > room) {
      groups.push([]);
      room = gramBudget;
    }
    groups[groups.length - 1].push(target);
    room -= bytes;
  }
  return groups;
}

/**
 * What each layer's input looks like on the calibration data. Layers that read the same activation in
 * the same way share what was collected.
 */
export async function collectTargets<P extends Planned>(
  part: Part,
  targets: Target<P>[],
  wantsGram: (weight: WeightMatrix) => boolean,
): Promise<Map<P, Collected | undefined>> {
  const probes = new Map<string, Probe>();
  const keys = new Map<P, string>();
  for (const entry of targets.flatMap((t) => t.planned)) {
    const { scope, input, layout, weight } = entry.layer;
    if (!layout || !weight) continue;
    const geometry =
      layout.kind === 'axis'
        ? layout.axis
        : layout.node.attribute.map(({ name, i, ints, s }) => [
            name,
            String(i),
            ints?.map(String),
            s?.toString(),
          ]);
    const key = JSON.stringify([scope.path, input, weight.cols, weight.groups, geometry]);
    keys.set(entry, key);
    if (probes.has(key)) continue;
    probes.set(key, {
      scope,
      value: input,
      layout,
      features: weight.cols * weight.groups,
      groups: weight.groups,
      gram: wantsGram(weight),
    });
  }
  const results = await collectStatistics(part, [...probes.values()]);
  const byKey = new Map([...probes.keys()].map((key, i) => [key, results[i]]));
  return new Map([...keys].map(([entry, key]) => [entry, byKey.get(key)]));
}
