import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import {
  type AttributeProto,
  allTensors,
  dtypeCode,
  encodeModel,
  type GraphProto,
  type Int64,
  type NodeProto,
  parseModel,
  tensorInfo,
} from '../../src/onnx/index.js';

/** One change of a model: of its bytes, or of what they mean. Numbers pick a place and a value. */
interface Mutation {
  kind: (typeof kinds)[number];
  where: number;
  what: number;
}

const kinds = [
  'flip a bit',
  'set a byte',
  'cut bytes',
  'insert bytes',
  'truncate',
  'set an attribute',
  'drop an attribute',
  'set an integer',
  'change a shape',
  'rewire an input',
  'swap the inputs',
  'change an operator',
  'change an interface',
] as const;

const fraction = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

export const mutations: fc.Arbitrary<Mutation[]> = fc.array(
  fc.record({ kind: fc.constantFrom(...kinds), where: fraction, what: fraction }),
  { minLength: 1, maxLength: 4 },
);

const numbers: Int64[] = [
  ...[0, 1, 2, 3, 7, 64, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32, -1, -2, -7, -(2 ** 31)],
  ...[2n ** 62n, 2n ** 63n - 1n, -(2n ** 63n)],
];

const operators =
  'Add ArgMax AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv ConvTranspose DequantizeLinear Einsum Expand Flatten Gather GatherND Gemm GlobalAveragePool GRU Identity If LayerNormalization Loop LSTM MatMul MaxPool Mul NonZero OneHot Pad Pow Range ReduceMean Relu Reshape Resize Scan ScatterND Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tile TopK Transpose Unsqueeze Where'.split(
    ' ',
  );

/** The bytes of a model after some changes; the same changes give the same bytes. */
export function mutate(original: Uint8Array, changes: readonly Mutation[]): Uint8Array {
  const { proto } = parseModel(original);
  const graphs: GraphProto[] = [];
  collect(proto.graph, graphs);
  for (const change of changes) if (proto.graph) mutateGraph(graphs, change);
  let bytes = encodeModel(proto);
  for (const change of changes) bytes = mutateBytes(bytes, change);
  return bytes;
}

function collect(graph: GraphProto | undefined, into: GraphProto[]): void {
  if (!graph) return;
  into.push(graph);
  for (const { attribute } of graph.node) for (const { g } of attribute) collect(g, into);
}

const pick = <T>(from: readonly T[], at: number): T => from[Math.floor(at * from.length)];
/** A second number that does not depend much on the first. */
const other = (at: number): number => (at * 7919) % 1;

function mutateGraph(graphs: GraphProto[], { kind, where, what }: Mutation): void {
  const graph = pick(graphs, where);
  const node = pick(graph.node, other(where));
  if (!node) return;
  const attribute = pick(node.attribute, what);
  if (kind === 'set an attribute' && attribute) setAttribute(attribute, other(what));
  else if (kind === 'drop an attribute')
    node.attribute = node.attribute.filter((a) => a !== attribute);
  else if (kind === 'set an integer') setInteger(graph, where, what);
  else if (kind === 'change a shape') changeShape(graph, where, what);
  else if (kind === 'rewire an input') rewire(graph, node, what);
  else if (kind === 'swap the inputs') node.input = node.input.slice().reverse();
  else if (kind === 'change an operator') node.opType = pick(operators, what);
  else if (kind === 'change an interface') {
    const dims = pick(graph.input, where)?.type?.tensorType?.shape?.dim;
    if (dims?.length) dims[Math.floor(what * dims.length)] = { dimValue: pick([1, 2, 17], what) };
  }
}

function setAttribute(attribute: AttributeProto, what: number): void {
  if (attribute.ints?.length) {
    attribute.ints = attribute.ints.slice();
    attribute.ints[Math.floor(what * attribute.ints.length)] = pick(numbers, other(what));
  } else if (attribute.i !== undefined) attribute.i = pick(numbers, what);
  else if (attribute.f !== undefined) attribute.f = pick([0, -1, Number.NaN, 1e30], what);
}

/** Shapes, axes and limits are int64 constants. */
function setInteger({ initializer, node }: GraphProto, where: number, what: number): void {
  const constants = node.flatMap(({ attribute }) => attribute.flatMap(({ t }) => t ?? []));
  const lists = [...initializer, ...constants].filter(
    (t) => t.dataType === dtypeCode('int64') && (t.rawData?.length ?? 0) % 8 === 0,
  );
  const tensor = pick(lists, where);
  if (!tensor?.rawData?.length) return;
  const values = new BigInt64Array(tensor.rawData.slice().buffer);
  values[Math.floor(what * values.length)] = BigInt(pick(numbers, other(what)));
  tensor.rawData = new Uint8Array(values.buffer);
}

function changeShape({ initializer, node }: GraphProto, where: number, what: number): void {
  const constants = node.flatMap(({ attribute }) => attribute.flatMap(({ t }) => t ?? []));
  const tensor = pick([...initializer, ...constants], where);
  if (!tensor) return;
  const { dims } = tensor;
  const elements = dims.reduce((a, b) => a * b, 1);
  tensor.dims = pick([[elements], dims.slice().reverse(), [...dims, 1], [0, ...dims], [-1]], what);
}

function rewire(graph: GraphProto, node: NodeProto, what: number): void {
  const names = [
    '',
    'nowhere',
    ...graph.initializer.map((t) => t.name ?? ''),
    ...graph.node.flatMap((n) => n.output),
  ];
  node.input = node.input.slice();
  node.input[Math.floor(what * node.input.length)] = pick(names, other(what));
}

function mutateBytes(bytes: Uint8Array, { kind, where, what }: Mutation): Uint8Array {
  const at = Math.floor(where * bytes.length);
  const count = 1 + Math.floor(what * 12);
  if (kind === 'flip a bit') bytes[at] ^= 1 << (count & 7);
  else if (kind === 'set a byte') bytes[at] = Math.floor(what * 256);
  else if (kind === 'truncate') return bytes.subarray(0, at);
  else if (kind === 'cut bytes')
    return new Uint8Array(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + count)]));
  else if (kind === 'insert bytes')
    return new Uint8Array(
      Buffer.concat([bytes.subarray(0, at), new Uint8Array(count).fill(at), bytes.subarray(at)]),
    );
  return bytes;
}

/** A model with its large tensors cut to one element, so that changes of bytes hit the structure. */
export function skeleton(path: string): Uint8Array {
  const { proto } = parseModel(new Uint8Array(readFileSync(path)));
  for (const { tensor } of allTensors(proto)) {
    const { byteLength, elements, place } = tensorInfo(tensor);
    if (place !== 'raw' || byteLength < 1024) continue;
    tensor.dims = tensor.dims.map(() => 1);
    tensor.rawData = tensor.rawData?.subarray(0, byteLength / elements);
  }
  return encodeModel(proto);
}
