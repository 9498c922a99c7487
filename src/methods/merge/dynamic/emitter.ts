import type { Names } from '../../../graph/bodies.js';
import { int, int64Tensor, ints, makeNode } from '../../../graph/build.js';
import {
  type AttributeProto,
  type DType,
  dtypeCode,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../../../onnx/index.js';

/** Nodes and constants on their way into a graph, for opset 13 and newer. */
export class Emitter {
  readonly nodes: NodeProto[] = [];
  readonly initializers: TensorProto[] = [];
  readonly #constants = new Map<string, string>();

  /**
   * @param names of the graph that the nodes go to
   * @param opset of the default domain
   */
  constructor(
    readonly names: Names,
    readonly opset: number,
  ) {}

  /** One node with one output; returns the output's name. */
  emit(
    opType: string,
    input: readonly string[],
    attributes: AttributeProto[] = [],
    output = this.names.fresh(`merge/${opType}`),
  ): string {
    this.nodes.push(makeNode(opType, input, output, attributes));
    return output;
  }

  /** A float32 scalar. */
  scalar(value: number): string {
    return this.#floats(`${value}`, [], [value]);
  }

  /** float32 [n]. */
  floats(values: readonly number[]): string {
    return this.#floats(`[${values.join(',')}]f`, [values.length], values);
  }

  /** An int64 scalar. */
  int(value: number): string {
    return this.#constant(`merge/${value}i`, (name) => ({
      ...int64Tensor([value], name),
      dims: [],
    }));
  }

  /** int64 [n]. */
  ints(values: readonly number[]): string {
    return this.#constant(`merge/[${values.join(',')}]`, (name) => int64Tensor(values, name));
  }

  #floats(key: string, shape: readonly number[], values: readonly number[]): string {
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    return this.#constant(`merge/${key}`, (name) =>
      makeTensor({ name, dtype: 'float32', shape, bytes }),
    );
  }

  #constant(key: string, make: (name: string) => TensorProto): string {
    let name = this.#constants.get(key);
    if (name === undefined) {
      name = this.names.fresh(key);
      this.#constants.set(key, name);
      this.initializers.push(make(name));
    }
    return name;
  }

  cast(x: string, to: DType, output?: string): string {
    return this.emit('Cast', [x], [int('to', dtypeCode(to))], output);
  }

  reduceSum(x: string, axes: readonly number[], keepdims = false): string {
    return this.emit('ReduceSum', [x, this.ints(axes)], [int('keepdims', keepdims ? 1 : 0)]);
  }

  reduceMean(x: string, axes: readonly number[]): string {
    const attributes = [int('keepdims', 0)];
    // The axes became an input with opset 18.
    if (this.opset < 18) return this.emit('ReduceMean', [x], [...attributes, ints('axes', axes)]);
    return this.emit('ReduceMean', [x, this.ints(axes)], attributes);
  }

  /** `from + share * (to - from)`. */
  blend(from: string, to: string, share: string, output?: string): string {
    const step = this.emit('Mul', [share, this.emit('Sub', [to, from])]);
    return this.emit('Add', [from, step], [], output);
  }
}
