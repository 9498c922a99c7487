import {
  type AttributeProto,
  decode,
  type FunctionProto,
  type GraphProto,
  type Model,
  type ModelProto,
  type NodeProto,
  readTensorBytes,
  type TensorInfo,
  type TensorProto,
  tensorInfo,
} from '../onnx/index.js';
import { modelInputs, modelOutputs } from './interface.js';
import { opName } from './nodes.js';

/** A difference between two models. */
export interface Difference {
  kind: 'model' | 'interface' | 'node' | 'tensor' | 'metadata';
  /** What differs: a tensor, a node or a field, with its path. */
  where: string;
  detail: string;
  /** For a tensor of unchanged type and shape: how far its values are apart. */
  values?: { changed: number; elements: number; largest?: number };
}

/** A node or tensor under a name that stays the same when the file is written again. */
interface Contents {
  nodes: Map<string, NodeProto>;
  tensors: Map<string, TensorProto>;
}

/**
 * All differences between two models: interface, opsets, nodes with their attributes and wiring,
 * tensors bit for bit, metadata. Order of initializers and how tensors are stored do not count.
 */
export async function diffModels(a: Model, b: Model): Promise<Difference[]> {
  const [one, other] = [contents(a.proto), contents(b.proto)];
  return [
    ...diffFields(a.proto, b.proto),
    ...diffKeys('node', one.nodes, other.nodes, (x, y) => diffNode(x, y)),
    ...(await diffTensors(a, one.tensors, b, other.tensors)),
  ];
}

function diffFields(a: ModelProto, b: ModelProto): Difference[] {
  const found: Difference[] = [];
  const compare = (kind: Difference['kind'], where: string, x: unknown, y: unknown) => {
    const [s, t] = [text(x), text(y)];
    if (s !== t) found.push({ kind, where, detail: `${s} -> ${t}` });
  };
  compare('model', 'IR version', a.irVersion, b.irVersion);
  compare('model', 'opsets', opsets(a), opsets(b));
  compare('interface', 'inputs', modelInputs(a), modelInputs(b));
  compare('interface', 'outputs', modelOutputs(a), modelOutputs(b));
  for (const field of [
    'producerName',
    'producerVersion',
    'domain',
    'modelVersion',
    'docString',
  ] as const) {
    compare('metadata', field, a[field], b[field]);
  }
  const [p, q] = [metadata(a), metadata(b)];
  for (const key of new Set([...p.keys(), ...q.keys()]))
    compare('metadata', key, p.get(key), q.get(key));
  const [f, g] = [functions(a), functions(b)];
  for (const key of new Set([...f.keys(), ...g.keys()]))
    compare('interface', `function ${key}`, f.get(key), g.get(key));
  return found;
}

const opsets = (m: ModelProto | FunctionProto) =>
  m.opsetImport.map((o) => `${o.domain || 'ai.onnx'} ${o.version}`).sort();
const metadata = (m: ModelProto) =>
  new Map((m.metadataProps ?? []).map((p) => [p.key ?? '', p.value ?? '']));
const functionName = ({ domain, name, overload }: FunctionProto): string =>
  [domain, name, overload].filter(Boolean).join('.');
const functions = (m: ModelProto) =>
  new Map(
    (m.functions ?? []).map((f) => [
      functionName(f),
      [f.input, f.output, f.attribute, f.attributeProto?.map(attributeText), opsets(f)],
    ]),
  );
const text = (value: unknown): string =>
  value === undefined
    ? 'none'
    : typeof value === 'string'
      ? value
      : JSON.stringify(value, (_, v) => (isExact(v) ? v : String(v)));
/** Whether JSON shows a value as it is: not so big integers, NaN and infinities. */
const isExact = (value: unknown): boolean =>
  typeof value === 'number' ? Number.isFinite(value) : typeof value !== 'bigint';

function contents({ graph, functions = [] }: ModelProto): Contents {
  const all: Contents = { nodes: new Map(), tensors: new Map() };
  if (graph) collectGraph(graph, '', all);
  for (const f of functions) collectNodes(f.node, `${functionName(f)}/`, all);
  return all;
}

function collectGraph(graph: GraphProto, path: string, all: Contents): void {
  for (const tensor of graph.initializer) all.tensors.set(path + tensor.name, tensor);
  for (const { values, indices } of graph.sparseInitializer ?? []) {
    if (values) all.tensors.set(`${path}${values.name} (sparse values)`, values);
    if (values && indices) all.tensors.set(`${path}${values.name} (sparse indices)`, indices);
  }
  collectNodes(graph.node, path, all);
}

function collectNodes(nodes: readonly NodeProto[], path: string, all: Contents): void {
  for (const node of nodes) {
    // A node is known by what it puts out: names may be missing or repeated.
    const key = path + (node.output.find(Boolean) ?? node.name ?? '');
    all.nodes.set(key, node);
    for (const a of node.attribute)
      collectAttribute(a, node.opType === 'Constant' ? key : `${key}.${a.name}`, all);
  }
}

function collectAttribute(a: AttributeProto, key: string, all: Contents): void {
  if (a.t) all.tensors.set(key, a.t);
  for (const [i, t] of (a.tensors ?? []).entries()) all.tensors.set(`${key}[${i}]`, t);
  if (a.g) collectGraph(a.g, `${key}/`, all);
  for (const [i, g] of (a.graphs ?? []).entries()) collectGraph(g, `${key}[${i}]/`, all);
}

function diffKeys<T>(
  kind: 'node' | 'tensor',
  a: Map<string, T>,
  b: Map<string, T>,
  compare: (x: T, y: T) => string | undefined,
) {
  const found: Difference[] = [];
  for (const [where, x] of a) {
    const y = b.get(where);
    const detail = y === undefined ? 'removed' : compare(x, y);
    if (detail) found.push({ kind, where, detail });
  }
  for (const where of b.keys()) if (!a.has(where)) found.push({ kind, where, detail: 'added' });
  return found;
}

function diffNode(a: NodeProto, b: NodeProto): string | undefined {
  if (opName(a) !== opName(b)) return `op ${opName(a)} -> ${opName(b)}`;
  if (a.input.join() !== b.input.join())
    return `inputs ${a.input.join(', ')} -> ${b.input.join(', ')}`;
  if (a.output.join() !== b.output.join())
    return `outputs ${a.output.join(', ')} -> ${b.output.join(', ')}`;
  const [p, q] = [attributes(a), attributes(b)];
  for (const name of new Set([...p.keys(), ...q.keys()])) {
    if (p.get(name) !== q.get(name))
      return `attribute ${name} ${p.get(name) ?? 'none'} -> ${q.get(name) ?? 'none'}`;
  }
  return undefined;
}

const attributes = (node: NodeProto): Map<string, string> =>
  new Map(node.attribute.map((a) => [a.name ?? '', attributeText(a)]));

/** A value as text; of bodies only what they take and give: their nodes and tensors are compared on their own. */
function attributeText({ f, i, s, floats, ints, strings, refAttrName, tp, ...a }: AttributeProto) {
  const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
  const bodies = (a.g ? [a.g, ...(a.graphs ?? [])] : (a.graphs ?? [])).map(({ input, output }) =>
    [input, output].map((values) => values.map(({ name }) => name)),
  );
  const all = [f, i, s && latin1(s), floats, ints, strings?.map(latin1), refAttrName, tp];
  return text([...all, ...bodies].filter((value) => value !== undefined));
}

async function diffTensors(
  a: Model,
  one: Map<string, TensorProto>,
  b: Model,
  other: Map<string, TensorProto>,
): Promise<Difference[]> {
  const found = diffKeys('tensor', one, other, () => undefined);
  for (const [where, x] of one) {
    const y = other.get(where);
    if (!y) continue;
    const [p, q] = [tensorInfo(x), tensorInfo(y)];
    const kinds = [p, q].map(({ dtype, shape }) => `${dtype}[${shape.join(', ')}]`);
    if (kinds[0] !== kinds[1]) {
      found.push({ kind: 'tensor', where, detail: `${kinds[0]} -> ${kinds[1]}` });
    } else if (p.dtype === 'string') {
      if (text(x.stringData) !== text(y.stringData))
        found.push({ kind: 'tensor', where, detail: 'values differ' });
    } else if ((p.place === 'empty') !== (q.place === 'empty')) {
      const detail = p.place === 'empty' ? 'no values -> values' : 'values -> no values';
      found.push({ kind: 'tensor', where, detail });
    } else if (p.place !== 'empty') {
      const [s, t] = [await readTensorBytes(a, x), await readTensorBytes(b, y)];
      if (Buffer.compare(s, t) !== 0) {
        found.push({ kind: 'tensor', where, ...valueDifference(s, t, p, kinds[0]) });
      }
    }
  }
  return found;
}

function valueDifference(
  one: Uint8Array,
  other: Uint8Array,
  { dtype, elements }: TensorInfo,
  kind: string,
): Pick<Difference, 'detail' | 'values'> {
  if (dtype === 'unknown' || dtype.startsWith('complex'))
    return { detail: `${kind}: values differ` };
  const [s, t] = [decode(one, dtype, elements), decode(other, dtype, elements)];
  let changed = 0;
  let largest = 0;
  for (let i = 0; i < elements; i++) {
    if (Object.is(s[i], t[i])) continue;
    changed++;
    largest = Math.max(largest, Math.abs(Number(s[i]) - Number(t[i])));
  }
  return {
    detail: `${kind}: ${changed} of ${elements} values differ, by at most ${Number(largest.toPrecision(3))}`,
    values: { changed, elements, largest },
  };
}
