import type { NodeProto } from '../../../onnx/index.js';
import { opName, subgraphs } from '../../nodes.js';
import type { ChannelAnalysis, Rule } from '../analysis.js';
import { elementwiseRules } from './elementwise.js';
import { layerRules } from './layers.js';
import { layoutRules } from './layout.js';
import { spaceRules } from './space.js';
import { followVector } from './vectors.js';

const rules: Record<string, Rule> = {
  ...elementwiseRules,
  ...layerRules,
  ...layoutRules,
  ...spaceRules,
};

/** The input that an op takes a shape from, and may take it with the number of channels in it. */
const shapeInputs: Record<string, number> = { Reshape: 1, Expand: 1, Resize: 3 };

/** Follows channels through one node. What no rule knows keeps all channels that it reads. */
export function followNode(a: ChannelAnalysis, node: NodeProto): void {
  const op = opName(node);
  const rule = Object.hasOwn(rules, op) ? rules[op] : undefined;
  if (!rule && op === 'Constant') return;
  if (followVector(a, node)) return;
  if (!rule || subgraphs(node).length > 0) {
    a.refuse(node, `${op} reads it`);
    return;
  }
  for (const [i, name] of node.input.entries()) {
    const understood = shapeInputs[op] === i && a.tracked(node, 0);
    for (const dim of (!understood && a.vectors.get(name)) || [])
      if (dim.kind === 'channels') a.block(dim.ids, `${op} computes with its length`);
  }
  // Other ops have one input that carries channels, and weights, bounds and the like.
  const combines = Object.hasOwn(elementwiseRules, op) || op === 'Concat';
  if (!combines)
    for (const name of node.input.slice(1)) {
      const value = a.values.get(name);
      if (value) a.block(value.ids, `it is an argument of ${op}`);
    }
  const refusal = rule(a, node);
  if (refusal) a.refuse(node, refusal);
}
