import { type DType, dtypeOf } from '../../../onnx/index.js';
import { type CoefficientRule, extrapolates } from '../coefficient-rule.js';
import { commit, emitBranches } from './branches.js';
import type { Emitter } from './emitter.js';
import { copyNodes, type Pair } from './pair.js';
import type { Scores } from './scores.js';

/** How the results of the dynamic graphs are made. */
export interface DynamicOptions {
  scores: Scores;
  rule: CoefficientRule;
  /** Whether the graph puts out `lambda` and `js`, too. */
  outputs: boolean;
}

/**
 * Turns the model into one that merges the weights for each batch, and runs the batch through them:
 * three passes, whatever the ops are. What it puts out for a batch of one is exact per sample.
 */
export function buildBatch(pair: Pair, { scores, rule, outputs }: DynamicOptions): void {
  const branches = emitBranches(pair, scores, rule, true);
  const { emitter, coefficient } = branches;
  const rename = new Map<string, string>();
  for (const name of pair.weights.keys())
    rename.set(name, mergedWeight(emitter, pair, name, coefficient.share, rule));
  const merged = copyNodes(pair.ownNodes, rename, '');
  commit(pair, branches, merged, { outputs });
}

/**
 * Emits the weight between those of both models. A variance stays positive.
 * @param share float32 [1] or []: of the generalist
 */
export function mergedWeight(
  emitter: Emitter,
  pair: Pair,
  name: string,
  share: string,
  rule: CoefficientRule,
): string {
  const tensor = pair.initializers.find((t) => t.name === name);
  const generalist = pair.weights.get(name) ?? name;
  const dtype = dtypeOf(tensor?.dataType);
  const scalar = tensor?.dims.length === 0 ? emitter.emit('Squeeze', [share]) : share;
  const merged = pair.names.fresh(`${name}@m`);
  if (!extrapolates(rule) || !pair.isVariance(name))
    return blend(emitter, name, generalist, scalar, dtype, merged);
  const wide = emitter.cast(blend(emitter, name, generalist, scalar, dtype), 'float32');
  return emitter.cast(emitter.emit('Max', [wide, emitter.scalar(leastVariance)]), dtype, merged);
}

/** What is left of a variance that extrapolation would make negative. */
export const leastVariance = 1e-12;

/** `from + share * (to - from)`, in float32 for half floats. @param share float32 */
export function blend(
  emitter: Emitter,
  from: string,
  to: string,
  share: string,
  dtype: DType,
  output?: string,
): string {
  if (dtype === 'float32') return emitter.blend(from, to, share, output);
  if (dtype === 'float64') return emitter.blend(from, to, emitter.cast(share, 'float64'), output);
  const [a, b] = [from, to].map((x) => emitter.cast(x, 'float32'));
  return emitter.cast(emitter.blend(a, b, share), dtype, output);
}
