import type { Floats } from '../../autodiff/optimizer.js';
import { readParameter } from '../../autodiff/training-copy.js';
import type { Model } from '../../onnx/index.js';
import { changedElements, editElements } from './edit.js';
import type { PlannedParameter } from './layers.js';

/** Writes new values of parameters into the model, in memory, and reports what changed. */
export async function storeValues(
  model: Model,
  planned: readonly PlannedParameter[],
  values: ReadonlyMap<string, Floats>,
): Promise<void> {
  for (const { parameter, report } of planned) {
    const after = values.get(parameter.name);
    if (!after || report.status === 'skipped') continue;
    const edit = changedElements(await readParameter(model, parameter.tensor), after);
    report.changed = edit.at.length;
    report.status = edit.at.length > 0 ? 'changed' : 'unchanged';
    if (edit.at.length > 0) editElements(model, parameter.tensor, edit);
  }
}
