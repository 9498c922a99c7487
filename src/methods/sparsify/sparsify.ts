import { dataError, modelError } from '../../errors.js';
import type { Graph } from '../../graph/graph.js';
import { cutIntoSegments, type Segment } from '../../graph/segments.js';
import { maskEdit, readMatrix, replaceEdit, type WeightMatrix } from '../../graph/weight-matrix.js';
import { type Model, type TensorProto, tensorInfo } from '../../onnx/index.js';
import type { Probe } from '../../runtime/instrument.js';
import { LinearAlgebra } from '../../runtime/linear-algebra.js';
import type { Context, Surgery } from '../method.js';
import { correctBias } from './bias.js';
import {
  type Boundary,
  type Collected,
  collectStatistics,
  type Part,
  propagate,
} from './collect.js';
import type { OutputError } from './output-meter.js';
import { pruneOptions, type SparsifyParameters } from './parameters.js';
import type { PlannedLayer, SparsifyLayer } from './plan.js';
import { type PrunedLayer, pruneLayer } from './prune.js';
import { RowPool } from './row-pool.js';
import { storeSparse } from './sparse-store.js';
import { countNonFinite, countNonFiniteStatistics, type InputStatistics } from './statistics.js';

/** Bytes of Gram matrices held at once; a segment that needs more is passed through more than once. */
const gramBudget = 512e6;

/** Below this many weights in a layer, starting worker threads costs more than it saves. */
const worthWorkers = 1 << 18;

/** The layers that one stored tensor serves; they are pruned as one. */
interface Target {
  tensor: TensorProto;
  weight: WeightMatrix;
  planned: PlannedLayer[];
}

interface Tools {
  pool: RowPool;
  algebra?: LinearAlgebra;
}

/**
 * Prunes the planned layers of `model`, in memory. See `Method.apply`.
 * @param graph the model with local functions expanded, which the layers were found in
 */
export async function sparsifyModel(
  model: Model,
  graph: Graph,
  given: SparsifyParameters,
  planned: PlannedLayer[],
  context: Context,
): Promise<Surgery<SparsifyLayer>> {
  const { calibration, threads } = context;
  const proto = graph.model;
  const targets = toTargets(planned);
  const notes: string[] = [];
  const large = targets.some(({ weight }) => weight.rows * weight.cols >= worthWorkers);
  const tools: Tools = { pool: new RowPool(large ? threads : 1) };
  try {
    if (calibration) {
      tools.algebra = await LinearAlgebra.open(threads);
      const segments = toSegments(graph, targets, given.calibMode);
      notes.push(
        given.calibMode === 'oneshot'
          ? 'calibrated in one pass of the dense model'
          : `calibrated segment by segment: ${segments.length} segments`,
      );
      let input: Boundary | undefined;
      for (const [i, segment] of segments.entries()) {
        const stage = (name: string) =>
          segments.length > 1 ? `${name} ${i + 1}/${segments.length}` : name;
        const part: Part = {
          model,
          proto,
          calibration,
          input,
          threads,
          progress: (done, total) => context.progress(stage('calibrate'), done, total),
        };
        const changes: (() => void)[] = [];
        const own = targets.filter((t) => segment.layers.includes(t.planned[0].layer));
        for (const group of withinBudget(own, given)) {
          const collected = await collectTargets(part, group, given);
          for (const [k, target] of group.entries()) {
            context.progress(stage('prune'), k, group.length);
            changes.push(...(await pruneTarget({ model, proto }, target, given, tools, collected)));
          }
        }
        // Only now, so that all of a segment's statistics come from its dense weights.
        for (const change of changes) change();
        if (segment.output) {
          const progress = (done: number, total: number) =>
            context.progress(stage('propagate'), done, total);
          input = await propagate({ ...part, progress }, segment.output);
        }
      }
    } else {
      for (const [k, target] of targets.entries()) {
        context.progress('prune', k, targets.length);
        for (const change of await pruneTarget({ model, proto }, target, given, tools, new Map()))
          change();
      }
    }
  } finally {
    await tools.pool.close();
    await tools.algebra?.release();
  }
  const layers = planned.map(({ report }) => report);
  if (!layers.some(({ status }) => status === 'changed')) {
    throw modelError('No layer changed.', {
      got: [...new Set(layers.map(({ reason }) => reason))].join('; '),
      hint: 'Choose a higher sparsity, or another model: this one may be sparse already.',
    });
  }
  if (given.store !== 'dense')
    notes.push(
      ...(await storeSparse(
        model,
        targets.map((t) => t.tensor),
        given.store,
      )),
    );
  notes.push(
    'zeros make a model smaller to compress and ship, not faster: the CPU kernels of ONNX Runtime multiply by them. In float32, --store sparse makes the file itself smaller above 67 % zeros',
  );
  return { layers, changedTensors: [...model.edits.keys()].map((t) => t.name ?? ''), notes };
}

/** One target per stored tensor, in the order of its first layer. */
function toTargets(planned: PlannedLayer[]): Target[] {
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

function toSegments(
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
function withinBudget(targets: Target[], given: SparsifyParameters): Target[][] {
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

/** Statistics by layer. Layers that read the same activation in the same way share them. */
type CollectedByLayer = Map<PlannedLayer, Collected | undefined>;

async function collectTargets(
  part: Part,
  targets: Target[],
  given: SparsifyParameters,
): Promise<CollectedByLayer> {
  const probes = new Map<string, Probe>();
  const keys = new Map<PlannedLayer, string>();
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
      gram: given.init === 'sparsegpt',
    });
  }
  const results = await collectStatistics(part, [...probes.values()]);
  const byKey = new Map([...probes.keys()].map((key, i) => [key, results[i]]));
  return new Map([...keys].map(([entry, key]) => [entry, byKey.get(key)]));
}

/** Prunes one stored tensor, writes its layers' reports, and returns the changes to make. */
async function pruneTarget(
  { model, proto }: Pick<Part, 'model' | 'proto'>,
  target: Target,
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
    const own = mergedStatistics(seen, g, layer.name);
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
    results[0].weights && joinFloats(results.map((r) => r.weights ?? new Float32Array(0)));
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
): InputStatistics | undefined {
  const [first, ...others] = new Set(seen.map((c) => c.accumulators[group]));
  if (!first) return undefined;
  for (const other of others) first.merge(other);
  const statistics = first.finish();
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

/** Columns of one convolution group out of token rows [n, groups * cols]. */
function groupRows(rows: Float32Array, cols: number, groups: number, group: number): Float32Array {
  if (groups === 1) return rows;
  const n = rows.length / (cols * groups);
  const own = new Float32Array(n * cols);
  for (let i = 0; i < n; i++) {
    const from = (i * groups + group) * cols;
    own.set(rows.subarray(from, from + cols), i * cols);
  }
  return own;
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

function joinFloats(parts: Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
