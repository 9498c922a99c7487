import { dataError, modelError } from '../../errors.js';
import { maskEdit, readMatrix, replaceEdit, type WeightMatrix } from '../../graph/weight-matrix.js';
import { tensorInfo } from '../../onnx/index.js';
import { type Collected, concat, groupRows, type Part } from '../calibration/collect.js';
import {
  countNonFinite,
  countNonFiniteStatistics,
  type InputStatistics,
  mergeAccumulators,
  type StatisticsAccumulator,
} from '../calibration/statistics.js';
import type { Target } from '../calibration/targets.js';
import { correctBias } from './bias.js';
import type { OutputError } from './output-meter.js';
import { pruneOptions, type SparsifyParameters } from './parameters.js';
import type { PlannedLayer, SparsifyLayer } from './plan.js';
import { type PrunedLayer, type PruneTools, pruneLayer } from './prune.js';

/** Statistics by layer. Layers that read the same activation in the same way share them. */
export type CollectedByLayer = Map<PlannedLayer, Collected | undefined>;

/** What pruning works with, from one tensor to the next. */
export interface Tools extends PruneTools {
  finish: (accumulator: StatisticsAccumulator) => InputStatistics;
}

/** Prunes one stored tensor, writes its layers' reports, and returns the changes to make. */
export async function pruneTarget(
  { model, proto }: Pick<Part, 'model' | 'proto'>,
  target: Target<PlannedLayer>,
  given: SparsifyParameters,
  tools: Tools,
  collected: CollectedByLayer,
): Promise<(() => void)[]> {
  const start = performance.now();
  const { tensor, weight, planned } = target;
  const { rows, cols, groups } = weight;
  const [{ layer }] = planned;
  const seen = planned.map((p) => collected.get(p)).filter((c) => c !== undefined);
  const report = (what: Partial<SparsifyLayer>) => {
    for (const p of planned) Object.assign(p.report, what);
  };
  if (collected.size > 0 && seen.length === 0) {
    report({ status: 'skipped', reason: 'no calibration sample reached it' });
    return [];
  }
  const w = await readMatrix(model, weight);
  refuseNonFinite(w, weight);

  const options = pruneOptions(given);
  const perGroup = rows / groups;
  const results: PrunedLayer[] = [];
  const statistics: InputStatistics[] = [];
  for (let g = 0; g < groups; g++) {
    const own = mergedStatistics(seen, g, layer.name, tools);
    if (own) statistics.push(own);
    results.push(
      await pruneLayer(
        {
          w: w.subarray(g * perGroup * cols, (g + 1) * perGroup * cols),
          rows: perGroup,
          cols,
          statistics: own,
          samples: seen[0] && groupRows(seen[0].rows, cols, groups, g),
          alpha: layer.alpha,
        },
        options,
        tools,
      ),
    );
  }

  const mask = join(results.map((r) => r.mask));
  const updated =
    results[0].weights && concat(results.map((r) => r.weights ?? new Float32Array(0)));
  const before = zeroFraction(w);
  const after = updated ? zeroFraction(updated) : zeroFraction(w, mask);
  const sum = (of: (r: PrunedLayer) => number) => results.reduce((n, r) => n + of(r), 0);
  const changed = updated !== undefined || after > before;
  const layerNotes = [...new Set(results.flatMap((r) => r.notes))];
  report({
    status: changed ? 'changed' : 'unchanged',
    ...(!changed && { reason: 'already that sparse' }),
    sparsity: { before, after },
    ...(options.dsnot && {
      rowsRefined: sum((r) => r.rowsRefined),
      swaps: sum((r) => r.swaps),
      refused: sum((r) => r.refused),
    }),
    error: meanError(results),
    seconds: (performance.now() - start) / 1000,
    notes: layerNotes,
  });
  if (!changed) return [];
  const edit = updated
    ? await replaceEdit(model, weight, updated)
    : await maskEdit(model, weight, mask);
  const changes: (() => void)[] = [() => model.edits.set(tensor, edit)];
  if (given.biasCorrect && statistics.length > 0) {
    const pruned = updated ?? w.map((v, i) => (mask[i] ? v : 0));
    const shift = meanShift(w, pruned, statistics, { rows, cols, groups });
    // Layers that share a weight see different inputs, so that no one shift is right for all.
    const bias =
      planned.length > 1
        ? { reason: 'its weight is shared' }
        : correctBias(model, proto, layer, shift);
    if ('apply' in bias) changes.push(bias.apply);
    else report({ notes: [...layerNotes, `bias not corrected: ${bias.reason}`] });
  }
  return changes;
}

/** As if the samples of all layers that share the tensor were concatenated. */
function mergedStatistics(
  seen: Collected[],
  group: number,
  layer: string,
  { finish }: Tools,
): InputStatistics | undefined {
  const [first, ...others] = new Set(seen.map((c) => c.accumulators[group]));
  if (!first) return undefined;
  const statistics = finish(mergeAccumulators([first, ...others]));
  const bad = countNonFiniteStatistics(statistics);
  if (bad > 0) {
    throw dataError('The calibration data drives a layer to NaN or infinity.', {
      where: layer,
      got: `${bad} of its input statistics are not finite`,
      hint: 'Check the scale of the data, or leave the layer out with --exclude.',
    });
  }
  return statistics;
}

function refuseNonFinite(w: Float32Array, { view }: WeightMatrix): void {
  const bad = countNonFinite(w);
  if (bad === 0) return;
  throw modelError('A weight is NaN or infinite.', {
    where: `tensor ${view.source.name}`,
    got: `${bad} of ${tensorInfo(view.tensor).elements} values`,
    hint: 'Repair the model, or leave the layer out with --exclude.',
  });
}

/** [rows] what pruning took from each output on average over tokens. */
function meanShift(
  w: Float32Array,
  pruned: Float32Array,
  statistics: InputStatistics[],
  { rows, cols, groups }: { rows: number; cols: number; groups: number },
): Float64Array {
  const shift = new Float64Array(rows);
  for (let r = 0, i = 0; r < rows; r++) {
    const { sum, samples, tokens } = statistics[Math.floor((r * groups) / rows)];
    for (let c = 0; c < cols; c++, i++) shift[r] += (w[i] - pruned[i]) * sum[c];
    shift[r] *= samples / tokens;
  }
  return shift;
}

/** Errors of a convolution's groups, which have as many rows each, in the root mean square. */
function meanError(results: PrunedLayer[]): SparsifyLayer['error'] {
  const pooled = (of: (r: PrunedLayer) => OutputError | undefined): OutputError | undefined => {
    const errors = results.map(of).filter((e) => e !== undefined);
    if (errors.length === 0) return undefined;
    const rms = (v: (e: OutputError) => number) =>
      Math.sqrt(errors.reduce((n, e) => n + v(e) ** 2, 0) / errors.length);
    return { total: rms((e) => e.total), mean: rms((e) => e.mean) };
  };
  const initial = pooled((r) => r.initialError);
  const final = pooled((r) => r.finalError);
  return initial && final && { initial, final };
}

function zeroFraction(w: Float32Array, mask?: Uint8Array): number {
  let zeros = 0;
  for (let i = 0; i < w.length; i++) if (w[i] === 0 || mask?.[i] === 0) zeros++;
  return zeros / w.length;
}

function join(parts: Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0] : new Uint8Array(Buffer.concat(parts));
}
