import { int64Tensor, makeNode } from '../graph/build.js';
import {
  type AttributeProto,
  type DType,
  decode,
  encodeFloat32,
  makeTensor,
  type NodeProto,
  readInlineBytes,
  type TensorProto,
  tensorInfo,
} from '../onnx/index.js';
import { Refusal } from './refusal.js';

/** Element type and shape of a value; no dims where they depend on the data. */
export interface TensorType {
  dtype: DType;
  dims?: readonly number[];
}

/** Constants up to this size are read by rules: shapes, axes, indices, exponents. */
const readable = 1 << 16;

/**
 * Where rules write: nodes and constants that are appended to a forward graph whose types are known.
 * Names of what it adds begin with `resect/`.
 */
export class Tape {
  /** In the order in which they were emitted, which is an order in which they may run. */
  readonly nodes: NodeProto[] = [];
  readonly initializers: TensorProto[] = [];
  readonly #types: ReadonlyMap<string, TensorType>;
  readonly #stored: ReadonlyMap<string, TensorProto>;
  readonly #cache = new Map<string, string>();
  readonly #prefix: string;
  #serial = 0;

  /**
   * @param types of the forward graph's values
   * @param stored its initializers
   */
  constructor(
    types: ReadonlyMap<string, TensorType>,
    stored: Iterable<TensorProto>,
    prefix = 'resect/',
  ) {
    this.#types = types;
    this.#stored = new Map([...stored].map((t) => [t.name ?? '', t]));
    this.#prefix = prefix;
  }

  /** Appends a node with one output. @returns the output's name */
  emit(
    opType: string,
    input: readonly string[],
    attributes: AttributeProto[] = [],
    domain = '',
  ): string {
    return this.emitAll(opType, input, 1, attributes, domain)[0];
  }

  /** Appends a node with one output of the given name, for an output of the graph. */
  emitAs(name: string, opType: string, input: readonly string[], attributes?: AttributeProto[]) {
    this.nodes.push(makeNode(opType, input, name, attributes));
  }

  /** Appends a node with `outputs` outputs. @returns their names */
  emitAll(
    opType: string,
    input: readonly string[],
    outputs: number,
    attributes: AttributeProto[] = [],
    domain = '',
  ): string[] {
    const names = Array.from({ length: outputs }, () => `${this.#prefix}${this.#serial++}`);
    this.nodes.push(makeNode(opType, input, names, attributes, domain));
    return names;
  }

  /**
   * The shape of a value of the forward graph.
   * @throws {Refusal} where it is not known before the graph runs
   */
  dims(value: string): readonly number[] {
    const dims = this.#types.get(value)?.dims;
    if (dims) return dims;
    throw new Refusal(`a shape that depends on the data ("${value}") stands in the way`);
  }

  dtype(value: string): DType {
    return this.#types.get(value)?.dtype ?? 'unknown';
  }

  /** False for values that no gradient can flow through, such as shapes, indices and masks. */
  carriesGradient(value: string): boolean {
    return /^(b?float\d+|unknown)$/.test(this.dtype(value));
  }

  /** Whether a value of the forward graph is an initializer. */
  isStored(value: string): boolean {
    return this.#stored.has(value);
  }

  /**
   * The numbers of a small constant of the forward graph, row-major; undefined for what is computed, and
   * for large tensors.
   */
  constant(value: string | undefined): number[] | undefined {
    const tensor = value === undefined ? undefined : this.#stored.get(value);
    if (!tensor) return undefined;
    const { dtype, elements } = tensorInfo(tensor);
    const bytes = elements <= readable ? readInlineBytes(tensor) : undefined;
    return bytes && Array.from(decode(bytes, dtype, elements), Number);
  }

  /** A scalar constant of the element type of `like`, a value of the forward graph. */
  scalar(value: number, like: string): string {
    return this.floats([value], [], like);
  }

  /** A constant `[...dims]` of the element type of `like`, a value of the forward graph. */
  floats(values: ArrayLike<number>, dims: readonly number[], like: string): string {
    const dtype = this.dtype(like);
    // Long ones get a key of their own.
    const key = `${dtype}[${dims}]${values.length <= 64 ? Array.from(values) : `#${this.#cache.size}`}`;
    return this.#remember(key, () => {
      const bytes =
        dtype === 'float64'
          ? new Uint8Array(Float64Array.from(values).buffer)
          : encodeFloat32(Float32Array.from(values), dtype);
      return makeTensor({ name: '', dtype, shape: dims, bytes });
    });
  }

  /** An int64 constant `[n]`. */
  ints(values: readonly number[]): string {
    return this.#remember(`int64:${values}`, () => int64Tensor(values));
  }

  #remember(key: string, make: () => TensorProto): string {
    const known = this.#cache.get(key);
    if (known !== undefined) return known;
    const name = `${this.#prefix}c${this.#cache.size}`;
    this.initializers.push({ ...make(), name });
    this.#cache.set(key, name);
    return name;
  }
}

/**
 * The name of output `index` of a forward node, which is asked for where the model did without it:
 * the indices of a MaxPool, the mean of a LayerNormalization.
 */
export function extraOutput(node: NodeProto, index: number): string {
  while (node.output.length <= index) node.output.push('');
  node.output[index] ||= `resect/${node.output[0]}/${index}`;
  return node.output[index];
}
