import {
  type DType,
  decode,
  dtypeBits,
  type NodeProto,
  readInlineBytes,
  tensorInfo,
} from '../../onnx/index.js';
import { Constants, type ConstantView, isView } from '../constants.js';
import type { Graph } from '../graph.js';
import { intsAttribute } from '../nodes.js';
import { dependencies } from '../topology.js';
import { UnionFind } from './union-find.js';

/** Shapes of values; no dims where they are not known. */
export type Shapes = ReadonlyMap<string, { readonly dims?: readonly number[] }>;

/** A value with channels along one axis. */
export interface Tracked {
  axis: number;
  rank: number;
  /** The channel at each position of the axis. Channels of equal number, or in one set, go together. */
  ids: Int32Array;
  /** Positions side by side that were one channel before its pixels were flattened into the axis. */
  repeat: number;
}

/** An element of a vector of integers, such as a shape, as far as it is known. */
export type Dim =
  /** A stored number, and where: element `index` of the constant that `node` reads, or of its attribute. */
  | { kind: 'literal'; value: number; place: Place; index: number }
  /** The length of a channel axis. */
  | { kind: 'channels'; ids: Int32Array }
  | { kind: 'other'; value?: number };

/** Where a node keeps a list of integers. */
export type Place = { node: NodeProto } & ({ input: number } | { attribute: string });

/** A parameter that has channels along an axis. */
export interface ParameterSite {
  role: 'producer' | 'parameter' | 'consumer';
  node: NodeProto;
  input: number;
  view: ConstantView;
  axis: number;
  ids: Int32Array;
  /** The activation that a consumer reads. */
  tensor?: string;
}

/** A stored number that counts channels: those of `ids`. */
export interface CountSite {
  place: Place;
  /** Element of the list; absent where the attribute is a single number. */
  index?: number;
  /** The list as it has to be written where the model leaves it out. */
  implied?: number[];
  ids: Int32Array;
}

/** Channels whose consecutive parts, one for each group of a convolution, keep equal counts. */
export interface BalanceSite {
  ids: Int32Array;
  parts: number;
}

/** What the rules for ops find out about a graph, node by node in topological order. */
export class ChannelAnalysis {
  /** Channels that stay or go together. */
  readonly units = new UnionFind();
  /** Channels that one decision is made for: those of one producer, and all that is in a unit with one of them. */
  readonly families = new UnionFind();
  readonly values = new Map<string, Tracked>();
  readonly vectors = new Map<string, Dim[]>();
  readonly parameters: ParameterSite[] = [];
  readonly counts: CountSite[] = [];
  readonly balances: BalanceSite[] = [];
  /** Why a channel must stay; the first reason found. */
  readonly reasons = new Map<number, string>();
  readonly opset: number;
  readonly #constants: Constants;

  /** @throws {ResectError} exit 5 on a cycle. */
  constructor(
    readonly graph: Graph,
    readonly shapes: Shapes,
  ) {
    this.#constants = new Constants(graph);
    const versions = graph.model.opsetImport;
    this.opset = Number(versions.find((o) => !o.domain || o.domain === 'ai.onnx')?.version ?? 1);
  }

  /** New channels, which one decision is made for. */
  start(count: number): Int32Array {
    const ids = new Int32Array(count);
    for (let i = 0; i < count; i++) {
      ids[i] = this.units.add();
      this.families.add();
      this.families.union(ids[0], ids[i]);
    }
    return ids;
  }

  unify(a: Int32Array, b: Int32Array): void {
    for (let i = 0; i < a.length; i++) this.join(a[i], b[i]);
  }

  join(a: number, b: number): void {
    this.units.union(a, b);
    this.families.union(a, b);
  }

  block(ids: Int32Array, reason: string): void {
    for (const id of ids) if (!this.reasons.has(id)) this.reasons.set(id, reason);
  }

  /** Blocks every channel that reaches the node, by value or as a number of a shape. */
  refuse(node: NodeProto, reason: string): void {
    for (const name of dependencies(node)) {
      const value = this.values.get(name);
      if (value) this.block(value.ids, reason);
      for (const dim of this.vectors.get(name) ?? [])
        if (dim.kind === 'channels') this.block(dim.ids, reason);
    }
  }

  tracked(node: NodeProto, index: number): Tracked | undefined {
    return this.values.get(node.input[index] ?? '');
  }

  dims(name: string): readonly number[] | undefined {
    const dims = this.shapes.get(name)?.dims;
    // Runtimes describe what they cannot infer as a scalar.
    return dims?.length && dims.every((d) => d > 0) ? dims : undefined;
  }

  define(name: string | undefined, value: Tracked): void {
    if (name) this.values.set(name, value);
  }

  /** The constant that an input reads; undefined for what is computed or left out. */
  view(node: NodeProto, index: number): ConstantView | undefined {
    const value = this.graph.input(this.graph.root, node, index);
    const traced = value && this.#constants.trace(value);
    return isView(traced) ? traced : undefined;
  }

  /** Why the parameter that an input reads cannot be cut; undefined when it can. */
  problem(node: NodeProto, index: number): string | undefined {
    const value = this.graph.input(this.graph.root, node, index);
    const traced = value && this.#constants.trace(value);
    if (!traced) return 'is computed or fed';
    if (!isView(traced)) return `is ${traced.reason}`;
    if (traced.dequantization) return 'is quantized';
    const { dtype } = tensorInfo(traced.tensor);
    if (dtypeBits(dtype) < 8) return `is stored as ${dtype}`;
    // Before IR 4 every initializer had to be listed as an input, and none could be overridden.
    if (traced.source.isInput && (this.graph.model.irVersion ?? 0) >= 4)
      return 'can be overridden by the caller';
    return undefined;
  }

  /** The numbers of a list that a node has as an attribute, in older opsets, or as a constant input. */
  ints(node: NodeProto, input: number, attributeName?: string): number[] | undefined {
    const values = this.vector(node, input, attributeName)?.map((dim) =>
      dim.kind === 'literal' ? dim.value : Number.NaN,
    );
    return values?.some(Number.isNaN) ? undefined : values;
  }

  /** As `ints`, with elements that are computed. */
  vector(node: NodeProto, input: number, attributeName?: string): Dim[] | undefined {
    const listed = attributeName && intsAttribute(node, attributeName);
    if (listed) return literals(listed, { node, attribute: attributeName });
    return this.inputVector(node, input);
  }

  inputVector(node: NodeProto, input: number): Dim[] | undefined {
    const view = this.view(node, input);
    if (!view) return this.vectors.get(node.input[input] ?? '');
    const { dtype, elements } = tensorInfo(view.tensor);
    const values = elements <= 64 && view.axes.length <= 1 && smallIntegers(view, dtype, elements);
    return values ? literals(values, { node, input }) : undefined;
  }
}

const literals = (values: readonly number[], place: Place): Dim[] =>
  values.map((value, index) => ({ kind: 'literal', value, place, index }));

function smallIntegers(view: ConstantView, dtype: DType, elements: number): number[] | undefined {
  const bytes = /^int(32|64)$/.test(dtype) ? readInlineBytes(view.tensor) : undefined;
  return bytes && Array.from(decode(bytes, dtype, elements), Number);
}

/** Why the channels that reach a node must stay. */
export type Refusal = string | undefined;

/** What an op does to the channels of its inputs. */
export type Rule = (a: ChannelAnalysis, node: NodeProto) => Refusal;

export const wrapAxis = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** Each channel `times` times, side by side. */
export function repeated(ids: Int32Array, times: number): Int32Array {
  const all = new Int32Array(ids.length * times);
  for (let i = 0; i < all.length; i++) all[i] = ids[Math.floor(i / times)];
  return all;
}
