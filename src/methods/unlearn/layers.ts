import { modelError } from '../../errors.js';
import { inlineFunctions } from '../../graph/functions.js';
import { Graph } from '../../graph/graph.js';
import { findParameters, type Parameter } from '../../graph/parameters.js';
import type { Model } from '../../onnx/index.js';
import type { LayerColumn, LayerReport } from '../method.js';

/** What was done to one parameter tensor. */
export interface UnlearnLayer extends LayerReport {
  parameters?: number;
  /** Elements whose value changed. */
  changed?: number;
}

export const columns: LayerColumn<UnlearnLayer>[] = [
  { header: 'changed', value: ({ changed }) => (changed === undefined ? '' : String(changed)) },
  {
    header: 'share',
    value: ({ changed, parameters }) =>
      changed === undefined || !parameters ? '' : `${((100 * changed) / parameters).toFixed(2)} %`,
  },
];

/** A parameter and what will be reported of it. */
export interface PlannedParameter {
  parameter: Parameter;
  report: UnlearnLayer;
}

/**
 * Refuses a model with quantized weights among those to be changed: what is left of it, biases and scales,
 * is not where examples are remembered.
 * @throws {ResectError} exit 5
 */
export function refuseQuantized(
  planned: readonly PlannedParameter[],
  selects: (layer: string) => boolean,
): void {
  const quantized = planned.find(
    ({ parameter: { name, skip } }) => skip?.includes('quantized') && selects(name),
  );
  if (!quantized) return;
  throw modelError('The weights of the model are quantized.', {
    where: `tensor "${quantized.parameter.name}"`,
    expected: 'weights in floating point',
    got: quantized.parameter.skip,
    hint: 'Treat the model before it was quantized, and quantize the result; or leave such weights out with --exclude.',
  });
}

/** The model's parameters, local functions expanded, and which of them may be changed. */
export function planParameters(
  model: Model,
  selects: (layer: string) => boolean,
): PlannedParameter[] {
  return findParameters(new Graph(inlineFunctions(model.proto))).map((parameter) => {
    const { name, op, shape, skip } = parameter;
    const reason = skip ?? (selects(name) ? undefined : 'not selected');
    const parameters = shape.reduce((a, b) => a * b, 1);
    const status = reason === undefined ? 'changed' : 'skipped';
    return {
      parameter,
      report: { name, op, shape, parameters, status, ...(reason && { reason }) },
    };
  });
}

/** Reports parameters that gradients do not reach as skipped. */
export function skipUnreachable(
  planned: readonly PlannedParameter[],
  unreachable: { parameters: string[]; op: string } | undefined,
): void {
  if (!unreachable) return;
  for (const { parameter, report } of planned) {
    if (report.status === 'skipped' || !unreachable.parameters.includes(parameter.name)) continue;
    report.status = 'skipped';
    report.reason = `no gradient through ${unreachable.op}`;
  }
}
