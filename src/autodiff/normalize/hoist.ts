import { mainGraph, mapBodies, Names } from '../../graph/bodies.js';
import { scopePath } from '../../graph/graph.js';
import { attribute, isStandard, subgraphs } from '../../graph/nodes.js';
import {
  type GraphProto,
  isFloat,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  tensorInfo,
} from '../../onnx/index.js';
import type { Origins } from './origins.js';

/**
 * The model with the floating-point constants of its bodies, initializers and Constant nodes at every
 * depth, as initializers of the main graph, values by reference, under names that nothing else has.
 * A parameter inside a branch can then become an input like any other; where the runtime finds out
 * which branch is taken, the branch's nodes join the main graph and its parameters have gradients.
 * A constant that is an output of its body stays.
 */
export function hoistBodyConstants(model: ModelProto, origins: Origins): ModelProto {
  const main = mainGraph(model);
  const names = new Names(main);
  const hoisted: TensorProto[] = [];

  const hoistBody = (
    body: GraphProto,
    path: string,
    outer: ReadonlyMap<string, string>,
  ): GraphProto => {
    const renamed = withoutShadowed(outer, body);
    const outputs = new Set(body.output.map(({ name }) => name));
    const takes = (name: string, tensor: TensorProto): boolean => {
      if (outputs.has(name) || renamed.has(name) || !isFloat(tensorInfo(tensor).dtype))
        return false;
      const unique = names.fresh(`${path}/${name}`);
      hoisted.push(origins.record({ ...tensor, name: unique }, tensor));
      renamed.set(name, unique);
      return true;
    };
    const initializer = body.initializer.filter((t) => !takes(t.name ?? '', t));
    const rest = body.node.filter((n) => {
      const tensor = isStandard(n) && n.opType === 'Constant' && attribute(n, 'value')?.t;
      return !(tensor && takes(n.output[0], tensor));
    });
    const node = hoistNodes(rest, path, renamed);
    const output = body.output.map((v) => ({ ...v, name: renamed.get(v.name ?? '') ?? v.name }));
    return { ...body, initializer, node, output };
  };

  /** Nodes that read what was hoisted under its new name, with their own bodies done. */
  const hoistNodes = (
    nodes: readonly NodeProto[],
    path: string,
    renamed: ReadonlyMap<string, string>,
  ): NodeProto[] =>
    nodes.map((node) => {
      const paths = subgraphs(node).map(({ name }) => scopePath(path, node, name));
      let body = 0;
      const done = mapBodies(node, (g) => hoistBody(g, paths[body++], renamed));
      if (!done.input.some((name) => renamed.has(name))) return done;
      return { ...done, input: done.input.map((name) => renamed.get(name) ?? name) };
    });

  const node = hoistNodes(main.node, '', new Map());
  if (hoisted.length === 0) return model;
  return {
    ...model,
    graph: { ...main, node, initializer: [...main.initializer, ...hoisted] },
  };
}

/** The new names that hold inside a body, which may define some of the old ones anew. */
function withoutShadowed(
  renamed: ReadonlyMap<string, string>,
  body: GraphProto,
): Map<string, string> {
  const inside = new Map(renamed);
  for (const { name } of [...body.input, ...body.initializer]) inside.delete(name ?? '');
  for (const { output } of body.node) for (const name of output) inside.delete(name);
  return inside;
}
