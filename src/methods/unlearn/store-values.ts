import type { Floats } from '../../autodiff/optimizer.js';
import { readParameter } from '../../autodiff/training-copy.js';
import {
  type DType,
  decodeFloat32,
  encodeFloat32,
  type Model,
  tensorInfo,
} from '../../onnx/index.js';
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
    const before = await readParameter(model, parameter.tensor);
    const edit = changedElements(before, asStored(after, tensorInfo(parameter.tensor).dtype));
    report.changed = edit.at.length;
    report.status = edit.at.length > 0 ? 'changed' : 'unchanged';
    if (edit.at.length > 0) editElements(model, parameter.tensor, edit);
  }
}

/** Values as a tensor will hold them: half precision is coarser than what was trained. */
function asStored(values: Floats, dtype: DType): Floats {
  const half = dtype === 'float16' || dtype === 'bfloat16';
  if (!half || values instanceof Float64Array) return values;
  return decodeFloat32(encodeFloat32(values, dtype), dtype, values.length);
}
