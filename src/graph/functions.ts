import { modelError } from '../errors.js';
import type {
  AttributeProto,
  FunctionProto,
  GraphProto,
  ModelProto,
  NodeProto,
  TensorProto,
} from '../onnx/index.js';
import { AttributeType } from '../onnx/index.js';
import { subgraphs } from './nodes.js';

/** Calls nested deeper than this are taken for a recursion that never ends. */
const maxDepth = 64;

/** Two calls of a function of two calls, and so on, make 2^64 nodes of a file of a few kilobytes. */
const maxNodes = 200_000;

/**
 * A copy of the model in which every call of a local function is replaced by the function's nodes.
 * Tensors are not copied: a constant of the copy is the very object that the original holds, so an
 * edit keyed by it reaches the original's storage. A model without functions is returned as it is.
 *
 * @throws {ResectError} exit 5 when functions call each other without end, or expand beyond any network.
 */
export function inlineFunctions(model: ModelProto): ModelProto {
  if (!model.functions?.length || !model.graph) return model;
  const functions = new Map(
    model.functions.map((f) => [functionKey(f.domain, f.name, f.overload), f]),
  );
  const imported = new Set(model.opsetImport.map((o) => domainOf(o.domain)));
  const opsetImport = [...model.opsetImport];
  for (const o of model.functions.flatMap((f) => f.opsetImport)) {
    if (!imported.has(domainOf(o.domain))) opsetImport.push(o);
    imported.add(domainOf(o.domain));
  }
  let calls = 0;
  let expanded = 0;

  const expandNodes = (nodes: NodeProto[], depth: number): NodeProto[] => {
    if (depth > 0) expanded += nodes.length;
    if (depth > maxDepth) throw modelError('Local functions call each other without end.');
    if (expanded > maxNodes) {
      throw modelError('Local functions expand to too many nodes.', {
        expected: `at most ${maxNodes}`,
      });
    }
    return nodes.flatMap((node) => {
      const callee = functions.get(functionKey(node.domain, node.opType, node.overload));
      if (callee) return expandNodes(instantiate(callee, node, calls++), depth + 1);
      if (subgraphs(node).length === 0) return [node];
      const expandBody = (body: GraphProto) => ({ ...body, node: expandNodes(body.node, depth) });
      return [{ ...node, attribute: node.attribute.map((a) => mapGraphs(a, expandBody)) }];
    });
  };

  const graph = { ...model.graph, node: expandNodes(model.graph.node, 0) };
  return { ...model, graph, functions: [], opsetImport };
}

const domainOf = (domain = ''): string => (domain === 'ai.onnx' ? '' : domain);

const functionKey = (domain?: string, name?: string, overload = ''): string =>
  `${domainOf(domain)}::${name}::${overload}`;

/** The body of `callee` for one call: values renamed to the caller's, attribute references filled in. */
function instantiate(callee: FunctionProto, call: NodeProto, serial: number): NodeProto[] {
  const prefix = `${call.name || callee.name}#${serial}/`;
  const names = new Map<string, string>();
  for (const [i, name] of callee.input.entries()) names.set(name, call.input[i] ?? '');
  for (const [i, name] of callee.output.entries()) {
    names.set(name, call.output[i] || `${prefix}${name}`);
  }
  const given = new Map((callee.attributeProto ?? []).map((a) => [a.name, a]));
  for (const a of call.attribute) given.set(a.name, a);

  const renamed = (name: string) => name && (names.get(name) ?? `${prefix}${name}`);
  const copyNode = (node: NodeProto): NodeProto => ({
    ...node,
    name: `${prefix}${node.name || node.opType}`,
    input: node.input.map(renamed),
    output: node.output.map(renamed),
    attribute: node.attribute.flatMap((a) => {
      if (!a.refAttrName) return [mapGraphs(a, copyBody)];
      const value = given.get(a.refAttrName);
      return value ? [{ ...value, name: a.name }] : [];
    }),
  });
  const copyBody = (body: GraphProto): GraphProto => ({
    ...body,
    input: body.input.map((v) => ({ ...v, name: renamed(v.name ?? '') })),
    output: body.output.map((v) => ({ ...v, name: renamed(v.name ?? '') })),
    valueInfo: [],
    initializer: [],
    // As Constant nodes, initializers get their new name without a copy of the tensor.
    node: [
      ...body.initializer.map((t) => constantNode(renamed(t.name ?? ''), t)),
      ...body.node.map(copyNode),
    ],
  });
  return callee.node.map(copyNode);
}

/** A Constant node that puts out `tensor` under `name`. */
const constantNode = (name: string, tensor: TensorProto): NodeProto => ({
  name,
  opType: 'Constant',
  input: [],
  output: [name],
  attribute: [{ name: 'value', type: AttributeType.tensor, t: tensor }],
});

const mapGraphs = (a: AttributeProto, map: (g: GraphProto) => GraphProto): AttributeProto => ({
  ...a,
  ...(a.g && { g: map(a.g) }),
  ...(a.graphs?.length && { graphs: a.graphs.map(map) }),
});
