import type { Graph } from '../../graph/graph.js';
import { ancestors } from '../../graph/reach.js';
import type { Model } from '../../onnx/index.js';
import { LinearAlgebra } from '../../runtime/linear-algebra.js';
import { type Boundary, type Part, propagate } from '../calibration/collect.js';
import {
  collectTargets,
  type Target,
  toSegments,
  toTargets,
  withinBudget,
} from '../calibration/targets.js';
import type { Context } from '../method.js';
import { rememberLast } from '../remember.js';
import { CodePool } from './code-pool.js';
import { codeTarget, largestHessian, type Outcome, type Seen, type Tools } from './code-target.js';
import { restoreCodes } from './kept-codes.js';
import { factorHessian, type InputMoments, prepareHessian } from './maths/hessian.js';
import { momentsOf } from './moments.js';
import type { Levels, Settings } from './parameters.js';
import type { PlannedLayer } from './plan.js';
import { Study } from './study.js';

/** By the name of a layer; undefined leaves it as it is. */
export type LevelsOf = (layer: string) => Levels | undefined;

/** Every which example is held out, to see what codes lose on data that they were not made for. */
const heldOutEvery = 5;

/** Below this many weights in a layer, starting worker threads costs more than it saves. */
const worthWorkers = 1 << 16;

type Calibrated = Pick<Context, 'calibration' | 'threads' | 'progress'>;

/**
 * Chooses codes and biases for the planned layers, in memory; the model stays as it is.
 * @param graph the model's, of opset 13 or more, that `planned` was found in
 * @returns by the layer's name; layers that share a tensor have one outcome
 */
export async function codeModel(
  model: Model,
  graph: Graph,
  planned: readonly PlannedLayer[],
  settings: Settings,
  context: Calibrated,
  levelsOf: LevelsOf = () => settings.levels,
): Promise<Map<string, Outcome>> {
  const outcomes = new Map<string, Outcome>();
  const wants = ({ planned: [{ report }] }: Target<PlannedLayer>) => levelsOf(report.name);
  await visitTargets(model, graph, planned, settings, context, {
    wants: (target) => wants(target) !== undefined,
    visit: async (target, seen, tools) => {
      const levels = wants(target) ?? settings.levels;
      const outcome = await codeTarget(model, target, levels, settings, seen, tools);
      for (const { report } of target.planned) outcomes.set(report.name, outcome);
      return outcome;
    },
  });
  return outcomes;
}

/** Codes every planned layer in each of the levels, in one pass of the original model. */
export async function codeInLevels(
  model: Model,
  graph: Graph,
  planned: readonly PlannedLayer[],
  given: Settings,
  context: Calibrated,
  choices: readonly Levels[],
): Promise<Map<Levels, Map<string, Outcome>>> {
  const settings = { ...given, oneshot: true };
  const all = new Map(choices.map((levels) => [levels, new Map<string, Outcome>()]));
  await visitTargets(model, graph, planned, settings, context, {
    wants: () => true,
    visit: async (target, seen, tools) => {
      for (const [levels, outcomes] of all) {
        const outcome = await codeTarget(model, target, levels, settings, seen, tools);
        for (const { report } of target.planned) outcomes.set(report.name, outcome);
      }
      return undefined;
    },
  });
  return all;
}

interface Visitor {
  wants: (target: Target<PlannedLayer>) => boolean;
  /** Returns what layers behind the target are to see in its place, if not what it was. */
  visit: (target: Target<PlannedLayer>, seen: Seen, tools: Tools) => Promise<Outcome | undefined>;
}

/** Visits targets in the order of the graph, each with what calibration tells of its inputs. */
async function visitTargets(
  model: Model,
  graph: Graph,
  planned: readonly PlannedLayer[],
  settings: Settings,
  { calibration, threads, progress }: Calibrated,
  { wants, visit }: Visitor,
): Promise<void> {
  const study = new Study(model, graph, planned);
  const targets = toTargets(study.planned).filter(wants);
  const large = targets.some(({ weight }) => weight.rows * weight.cols >= worthWorkers);
  const pool = new CodePool(large ? threads : 1);
  const algebra = await LinearAlgebra.open(threads);
  const tools = toolsFor(pool, algebra, settings);
  let done = 0;
  const visitNext = (target: Target<PlannedLayer>, seen: Seen) => {
    progress('ternarize', done++, targets.length);
    return visit(target, seen, tools);
  };
  try {
    if (!calibration) {
      for (const target of targets) await visitNext(target, { fit: new Map(), check: new Map() });
      return;
    }
    const wantsGram = (weight: Target['weight']) =>
      settings.coding !== 'fit' && weight.cols <= largestHessian(weight);
    const segments = toSegments(study.graph, targets, settings.oneshot ? 'oneshot' : 'sequential');
    let input: Boundary | undefined;
    for (const segment of segments) {
      const part: Part = {
        model,
        proto: study.proto,
        calibration,
        input,
        threads,
        progress: () => {},
      };
      const [fit, check] = splitPart(part);
      const own = targets.filter((t) => segment.layers.includes(t.planned[0].layer));
      const stages = settings.oneshot ? [own] : stagesOf(study.graph, own);
      for (const [i, stage] of stages.entries()) {
        for (const group of withinBudget(stage, wantsGram)) {
          const seen: Seen = {
            fit: await collectTargets(fit, group, wantsGram),
            check: check ? await collectTargets(check, group, () => false) : new Map(),
          };
          for (const target of group) {
            const outcome = await visitNext(target, seen);
            const isLast = i === stages.length - 1 && !segment.output;
            if (outcome?.coded && !settings.oneshot && !isLast)
              await study.try(target, restoreCodes(outcome.coded.codes), outcome.coded.biases);
          }
        }
      }
      if (segment.output) input = await propagate(part, segment.output);
      study.reset();
    }
  } finally {
    study.reset();
    await pool.close();
    await algebra.release();
  }
}

function toolsFor(pool: CodePool, algebra: LinearAlgebra, { bias }: Settings): Tools {
  const options = { centred: bias === 'full', Memory: pool.Memory };
  let last: { moments: InputMoments; made: ReturnType<Tools['hessianOf']> } | undefined;
  return {
    pool,
    algebra,
    momentsOf: rememberLast(momentsOf),
    hessianOf: (layer, moments, maxCols) => {
      if (last?.moments !== moments) {
        const hessian = prepareHessian(layer, moments, { ...options, maxCols });
        last = { moments, made: { hessian, factor: factorHessian(hessian, options) } };
      }
      return last.made;
    },
  };
}

/** The examples that codes are chosen by, and those that are held out; too few to divide are not. */
function splitPart(part: Part): [fit: Part, check: Part | undefined] {
  const { calibration, input } = part;
  const { indices } = calibration;
  const every = Math.min(heldOutEvery, indices.length);
  if (every < 2) return [part, undefined];
  const subset = (keeps: (i: number) => boolean): Part => ({
    ...part,
    calibration: { ...calibration, indices: indices.filter((_, i) => keeps(i)) },
    input: input && { ...input, values: input.values.filter((_, i) => keeps(i)) },
  });
  const isHeldOut = (i: number) => i % every === every - 1;
  return [subset((i) => !isHeldOut(i)), subset(isHeldOut)];
}

/** Targets of a segment one after the other: those first that wait for no other. */
function stagesOf(
  graph: Graph,
  targets: readonly Target<PlannedLayer>[],
): Target<PlannedLayer>[][] {
  const nodesOf = ({ planned }: Target<PlannedLayer>) => planned.map(({ layer }) => layer.node);
  const before = new Map(
    targets.map((target) => {
      const inputs = target.planned.map(({ layer }) => graph.root.values.get(layer.input));
      return [target, new Set(inputs.flatMap((value) => [...ancestors(graph, value)]))];
    }),
  );
  const stages: Target<PlannedLayer>[][] = [];
  let waiting = [...targets];
  while (waiting.length > 0) {
    const ready = waiting.filter(
      (target) =>
        !waiting.some(
          (other) =>
            other !== target && nodesOf(other).some((node) => before.get(target)?.has(node)),
        ),
    );
    // Shared weights may wait for each other.
    const stage = ready.length > 0 ? ready : waiting;
    stages.push(stage);
    waiting = waiting.filter((target) => !stage.includes(target));
  }
  return stages;
}
