import type { Model } from '../../onnx/index.js';

/** A model, and what errors call it. */
export interface LabelledModel {
  model: Model;
  label: string;
}

/** The second of two models, which the command line always gives. */
export function theOther(others: readonly Model[] | undefined): Model {
  const [other] = others ?? [];
  if (other) return other;
  throw new Error('a merge of two models has got two');
}
