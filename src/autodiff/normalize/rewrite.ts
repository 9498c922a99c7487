import { modelError } from '../../errors.js';
import { allGraphs, mainGraph, mapBodies, Names } from '../../graph/bodies.js';
import { int, int64Tensor, ints, makeNode } from '../../graph/build.js';
import { attribute, isStandard, opName } from '../../graph/nodes.js';
import {
  type AttributeProto,
  allTensors,
  type DType,
  decode,
  dtypeCode,
  dtypeOf,
  encodeFloat32,
  type GraphProto,
  type ModelProto,
  makeTensor,
  type NodeProto,
  readInlineBytes,
  type TensorProto,
  tensorInfo,
} from '../../onnx/index.js';

/** Says what stands in for a node, by adding nodes to `x`; one that adds none keeps the node. */
export type RewriteRule = (x: Expansion) => void;

/**
 * The model with nodes replaced, in the main graph and in every body. Values keep their names.
 * Constants that rules ask for become initializers of the main graph.
 * @param rules by op, in the form of `opName`
 * @param opset of the default domain that the new nodes are written for
 */
export function rewriteNodes(
  model: ModelProto,
  rules: ReadonlyMap<string, RewriteRule>,
  opset: number,
): ModelProto {
  const source = mainGraph(model);
  const context = new Context(model, opset);
  const rewriteGraph = (graph: GraphProto): GraphProto => ({
    ...graph,
    node: graph.node.flatMap((original) => {
      const node = mapBodies(original, rewriteGraph);
      const rule = rules.get(opName(node));
      if (!rule) return [node];
      const x = new Expansion(context, node);
      rule(x);
      return x.nodes.length > 0 ? x.nodes : [node];
    }),
  });
  const graph = rewriteGraph(source);
  return {
    ...model,
    graph: { ...graph, initializer: [...graph.initializer, ...context.made] },
  };
}

interface Facts {
  dtype: DType;
  /** Absent when the rank is unknown; a string is a symbol, and `''` an unknown dimension. */
  dims?: (number | string)[];
  stored?: TensorProto;
}

/** What is known of a model's values, and the constants that were made for it. */
class Context {
  readonly names: Names;
  readonly made: TensorProto[] = [];
  /** Whether any value may be float64, so that the type of an unknown value is in doubt. */
  readonly mayBeDouble: boolean;
  readonly #facts = new Map<string, { graph: GraphProto; facts: Facts | undefined }>();
  readonly #reads = new Set<string>();
  readonly #constants = new Map<string, string>();

  constructor(
    model: ModelProto,
    readonly opset: number,
  ) {
    const main = mainGraph(model);
    this.names = new Names(main);
    const double = dtypeCode('float64');
    let doubles = [...allTensors(model)].some(({ tensor }) => tensor.dataType === double);
    for (const graph of allGraphs(main)) {
      for (const tensor of graph.initializer) this.#learn(graph, tensor.name, storedFacts(tensor));
      for (const { name, type } of [...graph.input, ...graph.output, ...graph.valueInfo]) {
        if (!type?.tensorType) continue;
        const { elemType, shape } = type.tensorType;
        doubles ||= elemType === double;
        const dims = shape?.dim.map((d) => d.dimValue ?? d.dimParam ?? '');
        this.#learn(graph, name, { dtype: dtypeOf(elemType), dims });
      }
      for (const node of graph.node) {
        doubles ||= node.attribute.some((a) => a.i === double && /^(to|dtype)$/.test(a.name ?? ''));
        for (const name of node.input) this.#reads.add(name);
        const value = isStandard(node) && node.opType === 'Constant' && attribute(node, 'value')?.t;
        if (value) this.#learn(graph, node.output[0], storedFacts(value));
      }
      for (const { name } of graph.output) this.#reads.add(name ?? '');
    }
    this.mayBeDouble = doubles;
  }

  facts(name: string): Facts | undefined {
    return this.#facts.get(name)?.facts;
  }

  isRead(name: string): boolean {
    return this.#reads.has(name);
  }

  /** Name of an initializer with these values; equal ones are made once. */
  constant(wanted: string, tensor: TensorProto): string {
    const bytes = Buffer.from(tensor.rawData ?? new Uint8Array()).toString('base64');
    const key = `${tensor.dataType}[${tensor.dims}]${bytes}`;
    const known = this.#constants.get(key);
    if (known) return known;
    const name = this.names.fresh(wanted);
    this.made.push({ ...tensor, name });
    this.#constants.set(key, name);
    return name;
  }

  /** Initializers come before declarations. A name that two bodies define says nothing. */
  #learn(graph: GraphProto, name: string | undefined, facts: Facts): void {
    const known = this.#facts.get(name ?? '');
    if (!known) this.#facts.set(name ?? '', { graph, facts });
    else if (known.graph !== graph) known.facts = undefined;
  }
}

function storedFacts(stored: TensorProto): Facts {
  const { dtype, shape } = tensorInfo(stored);
  return { dtype, dims: shape, stored };
}

/** The replacement of one node while it is written. */
export class Expansion {
  readonly nodes: NodeProto[] = [];
  readonly #context: Context;

  constructor(
    context: Context,
    readonly node: NodeProto,
  ) {
    this.#context = context;
  }

  /** Opset of the default domain that nodes are written for. */
  get opset(): number {
    return this.#context.opset;
  }

  /** Name of an input; `''` when it is omitted. */
  input(index: number): string {
    return this.node.input[index] ?? '';
  }

  /** Name of an output, a new one when the node does not give it out. */
  output(index = 0): string {
    return this.node.output[index] || this.name(`output ${index}`);
  }

  /** A new name for a value of the replacement. */
  name(what: string): string {
    const base = this.node.output.find(Boolean) ?? this.node.name ?? '';
    return this.#context.names.fresh(`${base}/${what}`);
  }

  /** Whether anything reads the output. */
  isRead(index: number): boolean {
    const name = this.node.output[index];
    return Boolean(name) && this.#context.isRead(name);
  }

  /** Adds a node of the default domain; returns its first output, a new name when none is given. */
  add(
    opType: string,
    input: readonly string[],
    attributes: AttributeProto[] = [],
    output: string | readonly string[] = this.name(opType),
  ): string {
    const node = makeNode(opType, input, output, attributes);
    this.nodes.push(node);
    return node.output[0];
  }

  /** Shape of a value as far as the file tells: a string is a symbol, `''` an unknown dimension. */
  dims(name: string): (number | string)[] | undefined {
    return this.#context.facts(name)?.dims;
  }

  rank(name: string): number | undefined {
    return this.dims(name)?.length;
  }

  /** Element type of a value, where the file tells. */
  dtype(name: string): DType | undefined {
    return this.#context.facts(name)?.dtype;
  }

  /** The values of a small stored tensor; undefined for what is computed or kept in another file. */
  values(name: string): number[] | undefined {
    const stored = this.#context.facts(name)?.stored;
    if (!stored) return undefined;
    const { dtype, elements } = tensorInfo(stored);
    const bytes = elements <= 64 ? readInlineBytes(stored) : undefined;
    return bytes && Array.from(decode(bytes, dtype, elements), Number);
  }

  /** A scalar of the type of `like`. */
  float(value: number, like: string): string {
    const dtype = this.dtype(like);
    const made = this.floats([value], [], dtype === 'float64' ? dtype : 'float32');
    const inDoubt = dtype === undefined && this.#context.mayBeDouble;
    return inDoubt ? this.add('CastLike', [made, like]) : made;
  }

  /** A stored tensor of floats. */
  floats(
    values: readonly number[],
    shape: readonly number[] = [values.length],
    dtype: DType = 'float32',
  ): string {
    const bytes =
      dtype === 'float64'
        ? new Uint8Array(Float64Array.from(values).buffer)
        : encodeFloat32(Float32Array.from(values), dtype);
    const tensor = makeTensor({ name: '', dtype, shape, bytes });
    return this.#context.constant('normalize/float', tensor);
  }

  /** A stored list of int64, INT64_MAX and its like cut to what a number can hold. */
  int64(values: readonly number[]): string {
    const safe = values.map((v) =>
      Math.min(Math.max(v, Number.MIN_SAFE_INTEGER), Number.MAX_SAFE_INTEGER),
    );
    return this.#context.constant('normalize/int64', int64Tensor(safe));
  }

  /** A stored int64 scalar. */
  int64Scalar(value: number): string {
    return this.#context.constant('normalize/int64', { ...int64Tensor([value]), dims: [] });
  }

  /** Mean over `axes`, which stay with length 1. */
  mean(x: string, axes: readonly number[]): string {
    return this.opset >= 18
      ? this.add('ReduceMean', [x, this.int64(axes)])
      : this.add('ReduceMean', [x], [ints('axes', axes)]);
  }

  /** Length of one axis, as a list of one. */
  length(x: string, axis: number): string {
    const end = axis === -1 ? [] : [int('end', axis + 1)];
    return this.add('Shape', [x], [int('start', axis), ...end]);
  }

  /** Numbers as the type of `like`. */
  castLike(x: string, like: string): string {
    const dtype = this.dtype(like) ?? (this.#context.mayBeDouble ? undefined : 'float32');
    return dtype
      ? this.add('Cast', [x], [int('to', dtypeCode(dtype))])
      : this.add('CastLike', [x, like]);
  }

  /** @throws {ResectError} exit 5, naming node and op */
  refuse(reason: string, hint: string): never {
    throw modelError(`${opName(this.node)} cannot be prepared for gradients: ${reason}.`, {
      where: `node ${this.node.name || this.node.output[0]}`,
      hint,
    });
  }
}
