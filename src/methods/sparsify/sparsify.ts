import { modelError } from '../../errors.js';
import type { Graph } from '../../graph/graph.js';
import type { Model } from '../../onnx/index.js';
import { LinearAlgebra } from '../../runtime/linear-algebra.js';
import { type Boundary, type Part, propagate } from '../calibration/collect.js';
import { collectTargets, toSegments, toTargets, withinBudget } from '../calibration/targets.js';
import type { Context, Surgery } from '../method.js';
import { rememberLast } from '../remember.js';
import { factorHessian } from './cholesky.js';
import type { SparsifyParameters } from './parameters.js';
import type { PlannedLayer, SparsifyLayer } from './plan.js';
import { pruneTarget, type Tools } from './prune-target.js';
import { RowPool } from './row-pool.js';
import { storeSparse } from './sparse-store.js';

/** Below this many weights in a layer, starting worker threads costs more than it saves. */
const worthWorkers = 1 << 18;

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
  const wantsGram = () => given.init === 'sparsegpt';
  const large = targets.some(({ weight }) => weight.rows * weight.cols >= worthWorkers);
  const tools: Tools = {
    pool: new RowPool(large ? threads : 1),
    finish: rememberLast((accumulator) => accumulator.finish()),
    factor: rememberLast((hessian) => factorHessian(hessian, Math.sqrt(hessian.length))),
  };
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
        for (const group of withinBudget(own, wantsGram)) {
          const collected = await collectTargets(part, group, wantsGram);
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
  const changedTensors = [...model.edits.keys()].map((t) => t.name ?? '');
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
  return { layers, changedTensors, notes };
}
