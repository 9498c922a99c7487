import type { TensorProto } from '../../../onnx/index.js';
import type { PlannedParameter } from '../layers.js';

/** Parameters before and behind the value that a model is cut at; some may be on both sides. */
export interface Sides {
  extractor: ReadonlySet<TensorProto>;
  classifier: ReadonlySet<TensorProto>;
}

/**
 * Reports what LAF leaves alone as skipped, in place: what is not in the extractor or, with a repair, in
 * neither part.
 */
export function skipBehind(
  planned: readonly PlannedParameter[],
  { extractor, classifier }: Sides,
  repair: boolean,
): void {
  for (const { parameter, report } of planned) {
    if (report.status === 'skipped' || extractor.has(parameter.tensor)) continue;
    const behind = classifier.has(parameter.tensor);
    if (repair && behind) continue;
    report.status = 'skipped';
    report.reason = behind ? 'in the classifier' : 'not on the way to the output';
  }
}
