import { modelError } from '../../../errors.js';
import { isStandard, opName } from '../../../graph/nodes.js';
import { dependencies } from '../../../graph/topology.js';
import type { NodeProto } from '../../../onnx/index.js';
import { isLinear } from './linearity.js';
import type { Pair } from './pair.js';

/** How the merged stream gets the results of a node when every sample has weights of its own. */
export type Treatment =
  /** The branches have both results already, and the blend of them is exact. */
  | 'branches'
  /** Run with the weights of either model on the merged activations; the results are blended. */
  | 'twice'
  /** A BatchNormalization: not linear in its variance, computed from blended statistics. */
  | 'statistics'
  /** Run once, on merged activations. */
  | 'once';

export interface Plan {
  /** Of the nodes whose results depend on weights that differ. */
  treatments: Map<NodeProto, Treatment>;
  /** Values that the branches have and the merged stream reads: to be blended. */
  blended: Set<string>;
}

/** A node of which samples with weights of their own cannot be made by blending results. */
export class NotLinear extends Error {
  constructor(readonly node: NodeProto) {
    super(`${opName(node)} is not linear in its weights`);
  }
}

/**
 * Decides how each node is treated. Interpolated weights are exact where the op is linear in them:
 * then the result is the blend of the results with the weights of either model.
 * @throws {NotLinear} for an op that hides its weights
 */
export function classify(pair: Pair): Plan {
  const treatments = new Map<NodeProto, Treatment>();
  const blended = new Set<string>();
  /** Values that both branches have, whose blend is what merged weights would give. */
  const exact = new Set(pair.weights.keys());
  for (const node of pair.ownNodes) {
    const differing = dependencies(node).filter((name) => pair.differing.has(name));
    const captured = differing.filter((name) => !node.input.includes(name));
    const at = (names: readonly string[]) =>
      node.input.flatMap((name, i) => (names.includes(name) ? [i] : []));
    const isExact = (name: string) => exact.has(name);
    if (differing.every(isExact) && captured.length === 0 && isLinear(node, at(differing))) {
      treatments.set(node, 'branches');
      for (const name of node.output) exact.add(name);
      continue;
    }
    // Weights, or what was made of weights alone: no axis of theirs runs along the samples.
    const weights = differing.filter((name) => !pair.sampled.has(name));
    if (weights.some((name) => captured.includes(name))) throw new NotLinear(node);
    const slots = at(weights);
    if (weights.length === 0) treatments.set(node, 'once');
    else if (weights.every(isExact) && isLinear(node, slots)) treatments.set(node, 'twice');
    else if (weights.every(isExact) && isBatchNorm(node) && slots.every((i) => i > 0))
      treatments.set(node, 'statistics');
    else throw new NotLinear(node);
    for (const name of differing) if (exact.has(name) && pair.sampled.has(name)) blended.add(name);
  }
  for (const { name = '' } of pair.graph.output) {
    if (!exact.has(name)) continue;
    if (!pair.fed.has(name))
      throw modelError('An output of the model depends on the weights alone.', {
        where: `output ${name}`,
        hint: 'It is not of a sample: choose --mode batch.',
      });
    blended.add(name);
  }
  return { treatments, blended };
}

const isBatchNorm = (node: NodeProto): boolean =>
  isStandard(node) && node.opType === 'BatchNormalization';
