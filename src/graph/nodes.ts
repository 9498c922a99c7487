import type { AttributeProto, GraphProto, NodeProto } from '../onnx/index.js';

/** True for the default ONNX domain, which files spell in two ways. */
export const isStandard = (node: NodeProto): boolean => !node.domain || node.domain === 'ai.onnx';

/** The op as shown to people: with its domain, where that is not the standard one. */
export const opName = (node: NodeProto): string =>
  isStandard(node) ? (node.opType ?? '') : `${node.domain}.${node.opType}`;

export const attribute = (node: NodeProto, name: string): AttributeProto | undefined =>
  node.attribute.find((a) => a.name === name);

export const intAttribute = (node: NodeProto, name: string, fallback: number): number =>
  Number(attribute(node, name)?.i ?? fallback);

export const floatAttribute = (node: NodeProto, name: string, fallback: number): number =>
  attribute(node, name)?.f ?? fallback;

export const stringAttribute = (node: NodeProto, name: string, fallback: string): string => {
  const text = attribute(node, name)?.s;
  return text?.length ? new TextDecoder().decode(text) : fallback;
};

export const intsAttribute = (node: NodeProto, name: string): number[] | undefined =>
  attribute(node, name)?.ints?.map(Number);

/** The bodies that a control-flow node owns, by attribute name (`then_branch`, `body`, …). */
export function subgraphs(node: NodeProto): { name: string; graph: GraphProto }[] {
  return node.attribute.flatMap((a) => [
    ...(a.g ? [{ name: a.name ?? '', graph: a.g }] : []),
    ...(a.graphs ?? []).map((graph, i) => ({ name: `${a.name}[${i}]`, graph })),
  ]);
}
