/** Levels for each layer: the fewest bytes that an allowed loss, or a size, leaves room for. */
import { usageError } from '../../errors.js';
import type { Graph } from '../../graph/graph.js';
import { Model } from '../../onnx/index.js';
import { keepsWithin, mostSteps, refuseDropSearch, searchData } from '../drop-search.js';
import type { Context } from '../method.js';
import { codeInLevels, codeModel, type LevelsOf } from './code-model.js';
import type { Outcome } from './code-target.js';
import { bitsOf, type KeptCodes } from './kept-codes.js';
import type { Levels, Settings } from './parameters.js';
import type { PlannedLayer } from './plan.js';
import { storeCodes } from './store.js';

const choices: readonly Levels[] = [256, 16, 4, 3];

/** A layer on fewer bytes than before. */
interface Step {
  layer: string;
  levels: Levels;
  /** What it adds to the share of the output that is lost, and saves in bytes. */
  error: number;
  bytes: number;
}

/**
 * Refuses a search that has nothing to go by, before any work is done.
 * @throws {ResectError} exit 2
 */
export function refuseSearch(context: Context): void {
  if (!context.calibration)
    throw usageError('--mixed auto compares what layers lose on calibration data.', {
      expected: '--calib DATA',
    });
  if (context.maxBytes === undefined || Object.keys(context.maxDrop ?? {}).length > 0)
    refuseDropSearch('--mixed auto', context);
}

/**
 * Puts layers on fewer levels one after the other, always the one that loses least on held-out data for
 * the bytes it saves: as far as `maxDrop` allows, by bisection, or until the file is as small as
 * `maxBytes`. What layers lose is seen in one pass of the original; what is tried is coded as
 * `settings` say.
 */
export async function searchLevels(
  model: Model,
  graph: Graph,
  planned: readonly PlannedLayer[],
  settings: Settings,
  context: Context,
): Promise<{ outcomes: Map<string, Outcome>; note: string }> {
  const candidates = await codeInLevels(model, graph, planned, settings, context, choices);
  const steps = stepsOf(planned, candidates, settings);
  const after = (count: number): LevelsOf => {
    const chosen = new Map(steps.slice(0, count).map(({ layer, levels }) => [layer, levels]));
    return (layer) => chosen.get(layer);
  };
  const leader = leaders(planned);
  const code = async (count: number): Promise<Map<string, Outcome>> => {
    const levelsOf = after(count);
    if (!settings.oneshot) return codeModel(model, graph, planned, settings, context, levelsOf);
    return new Map(
      planned.flatMap(({ report: { name } }) => {
        const levels = levelsOf(leader.get(name) ?? name);
        const outcome = levels && candidates.get(levels)?.get(name);
        return outcome ? [[name, outcome] as const] : [];
      }),
    );
  };

  let kept: { count: number; outcomes: Map<string, Outcome> } | undefined;
  let trials = 0;
  const holds = async (count: number) => {
    trials++;
    const outcomes = await code(count);
    const made = new Model({ ...model.proto }, undefined, model.path);
    await storeCodes(made, outcomes, settings, context);
    const fits = await keepsWithin(model, made, context);
    if (fits) kept = { count, outcomes };
    return fits;
  };
  const bySize = Object.keys(context.maxDrop ?? {}).length === 0;
  const count = bySize
    ? stepsToSize(steps, model.sizeBytes - (context.maxBytes ?? 0))
    : await mostSteps(steps.length, holds);
  const outcomes = kept?.count === count ? kept.outcomes : await code(count);
  const saved = steps.slice(0, count).reduce((sum, { bytes }) => sum + bytes, 0);
  const how = bySize
    ? 'are enough for --max-size'
    : `keep within --max-drop, in ${trials} ${trials === 1 ? 'trial' : 'trials'} on ${searchData(context)}`;
  return {
    outcomes,
    note: `Levels of each layer: ${count} of ${steps.length} steps to fewer bytes ${how}. They save ${(saved / 1e3).toFixed(0)} kB.`,
  };
}

/** The first layer, by name, of all that share a weight, which decides for them. */
function leaders(planned: readonly PlannedLayer[]): Map<string, string> {
  const first = new Map<unknown, string>();
  const leader = new Map<string, string>();
  for (const { layer, report } of planned) {
    const tensor = layer.weight?.view.tensor;
    if (!tensor || report.status === 'skipped') continue;
    if (!first.has(tensor)) first.set(tensor, report.name);
    leader.set(report.name, first.get(tensor) ?? report.name);
  }
  return leader;
}

/**
 * All steps, in the order in which they are to be taken: of each layer those on the lower convex hull of
 * what it loses by its bytes, so that no later step of a layer is a better bargain than an earlier one.
 */
function stepsOf(
  planned: readonly PlannedLayer[],
  candidates: ReadonlyMap<Levels, ReadonlyMap<string, Outcome>>,
  settings: Settings,
): Step[] {
  const steps: Step[] = [];
  const leader = leaders(planned);
  for (const { layer, report } of planned) {
    const { weight } = layer;
    if (!weight || leader.get(report.name) !== report.name) continue;
    const points = [...candidates].flatMap(([levels, outcomes]) => {
      const { coded, report: made } = outcomes.get(report.name) ?? {};
      return coded
        ? [{ levels, bytes: bytesOf(coded.codes, settings), error: made?.outputError ?? 0 }]
        : [];
    });
    const whole = { levels: undefined, bytes: 4 * weight.rows * weight.cols, error: 0 };
    const hull = lowerHull([whole, ...points]);
    for (const [i, { levels, bytes, error }] of hull.entries()) {
      if (levels === undefined) continue;
      const before = hull[i - 1];
      steps.push({
        layer: report.name,
        levels,
        error: error - before.error,
        bytes: before.bytes - bytes,
      });
    }
  }
  return steps.sort((a, b) => a.error / a.bytes - b.error / b.bytes);
}

interface Point {
  levels?: Levels;
  bytes: number;
  error: number;
}

/** From the most bytes to the fewest. Of as many bytes only the least error counts. */
function lowerHull(points: readonly Point[]): Point[] {
  const sorted = [...points].sort((a, b) => b.bytes - a.bytes || a.error - b.error);
  const hull: Point[] = [];
  for (const point of sorted) {
    if (hull.at(-1)?.bytes === point.bytes) continue;
    const rate = (from: Point) => (point.error - from.error) / (from.bytes - point.bytes);
    while (hull.length > 1) {
      const [before, last] = hull.slice(-2);
      const slope = (last.error - before.error) / (before.bytes - last.bytes);
      if (rate(last) > slope) break;
      hull.pop();
    }
    hull.push(point);
  }
  return hull;
}

/** Bits of a weight and bytes of a scale, as the format stores them. */
function bytesOf({ rows, cols, groups, levels }: KeptCodes, { format, pack }: Settings): number {
  const trits = format === 'standard' || format === 'standard-int8' || pack === 'trits';
  const bits =
    format === 'float'
      ? 32
      : levels === 3 && trits
        ? 1.6
        : Math.max(bitsOf[levels], format === 'ort4' ? 4 : 2);
  return (rows * cols * bits) / 8 + 4 * rows * groups;
}

function stepsToSize(steps: readonly Step[], toSave: number): number {
  let saved = 0;
  for (const [i, { bytes }] of steps.entries()) {
    if (saved >= toSave) return i;
    saved += bytes;
  }
  return steps.length;
}
