import { availableParallelism } from 'node:os';
import { openDataset, sampleIndices, type Task } from '../data/index.js';
import { modelError, usageError } from '../errors.js';
import { type Comparison, compareModels, firstFeed, gateInput } from '../evaluate/compare.js';
import { type EvaluationData, evaluateModels } from '../evaluate/evaluate.js';
import { checkGates, type GateResult, type Gates, validateGates } from '../evaluate/gates.js';
import { measureSize, type SizeMeasure } from '../evaluate/measure.js';
import type { Metrics } from '../evaluate/metrics.js';
import { modelInputs } from '../graph/interface.js';
import type { Progress } from '../methods/method.js';
import { readModel } from '../onnx/index.js';
import { type Latency, measureLatency } from '../runtime/latency.js';
import { withSession } from '../runtime/session.js';

/** A model, or a model against its original, on data. */
export interface EvaluationRequest {
  model: string;
  /** The original to compare with. */
  against?: string;
  data: string;
  /** Examples at most, drawn with `seed`; default all. */
  samples?: number;
  tokenizer?: string;
  where?: string;
  indices?: string;
  task?: Task;
  gates?: Partial<Gates>;
  seed?: number;
  threads?: number;
  progress?: Progress;
}

export interface EvaluationResult {
  model: string;
  task: Task;
  data: { path: string; samples: number };
  size: SizeMeasure;
  /** Absent for task `none`. */
  metrics?: Metrics;
  latency: Latency & { threads: number };
  /** With `against`: the original's numbers beside the model's, and how close their outputs are. */
  comparison?: Comparison;
  gates: GateResult[];
}

/**
 * Measures a model on data.
 * @throws {ResectError} exit 6 when the data does not fit, 5 when the model does not run. A failed
 *   gate is a result: see `gates`.
 */
export async function evaluate(request: EvaluationRequest): Promise<EvaluationResult> {
  const { seed = 0, threads = availableParallelism(), progress = () => {} } = request;
  const gates: Gates = { maxDrop: [], min: [], ...request.gates };
  validateGates(gates);
  if (!request.against && (gates.maxDrop.length > 0 || gates.minSpeedup !== undefined)) {
    throw usageError('--max-drop and --min-speedup compare with the original.', {
      expected: '--against ORIGINAL',
    });
  }
  const model = await readModel(request.model);
  const inputs = modelInputs(model.proto);
  const { tokenizer, where, indices, samples } = request;
  const dataset = await openDataset(request.data, inputs, {
    tokenizer,
    where,
    indices,
    task: request.task,
  });
  const task = request.task ?? dataset.task;
  const chosen = sampleIndices(dataset.length, samples, seed);
  const shared = {
    model: request.model,
    task,
    data: { path: request.data, samples: chosen.length },
  };

  if (request.against) {
    const original = await readModel(request.against);
    const comparison = await compareModels(
      { model: original, size: await measureSize(original) },
      model,
      {
        data: { dataset, indices: chosen },
        task,
        threads,
        seed,
        progress,
      },
    );
    if (!comparison.latency)
      throw modelError('The models do not run.', { got: comparison.unmeasured });
    return {
      ...shared,
      size: comparison.size.after,
      metrics: comparison.metrics?.after,
      latency: { ...comparison.latency.after, threads },
      comparison,
      gates: checkGates(gates, gateInput(comparison)),
    };
  }
  const data: EvaluationData = { kind: 'data', dataset, indices: chosen };
  const { metrics, latency } = await withSession(request.model, { threads }, async (session) => {
    const measured = await evaluateModels([session], data, {
      task,
      progress: (done, total) => progress('evaluate', done, total),
    });
    const [own] =
      measured.latency ??
      (await measureLatency([session], await firstFeed(dataset, chosen, inputs)));
    return { metrics: measured.metrics[0], latency: own };
  });
  const size = await measureSize(model);
  return {
    ...shared,
    size,
    ...(task !== 'none' && { metrics }),
    latency: { ...latency, threads },
    gates: checkGates(gates, {
      before: {},
      after: metrics,
      bytes: { before: size.bytes, after: size.bytes },
    }),
  };
}
