import type { Model } from '../../onnx/index.js';

/** The second model, which the command line always gives. */
export function theOther(others: readonly Model[] | undefined): Model {
  const [other] = others ?? [];
  if (other) return other;
  throw new Error('a merge of two models has got two');
}
