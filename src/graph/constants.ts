import {
  type DType,
  decode,
  dtypeOf,
  type NodeProto,
  readInlineBytes,
  type TensorProto,
  tensorInfo,
} from '../onnx/index.js';
import type { Graph, Scope, Value } from './graph.js';
import { attribute, intAttribute, intsAttribute, isStandard, opName } from './nodes.js';
import { dependencies, topologicalOrder } from './topology.js';

/** One axis of a stored tensor as a consumer sees it: its length, and stored elements per step. */
export interface Axis {
  size: number;
  stride: number;
}

/** Integer storage read as `(q - zeroPoint) * scale`. */
export interface Dequantization {
  scale: TensorProto;
  zeroPoint?: TensorProto;
  /** The stored axis that `scale` runs along; absent when one scale serves the whole tensor. */
  axis?: Axis;
}

/** A constant as a consumer sees it, traced back to the tensor that stores it. */
export interface ConstantView {
  tensor: TensorProto;
  /** Element type that the consumer sees, after Cast and DequantizeLinear. */
  dtype: DType;
  /** The consumer's axes, in its order. */
  axes: Axis[];
  dequantization?: Dequantization;
  /** The value that stores the tensor: an initializer, or the output of a Constant node. */
  source: Value;
}

/** Why a value that depends on nothing but constants cannot be traced to one stored tensor. */
export interface Untraceable {
  /** What the value is, as in "weight computed by Mul from constants". */
  reason: string;
}

/** A read of a stored tensor by something other than a mere change of shape or type. */
export interface ConstantUse {
  node: NodeProto;
  scope: Scope;
  index: number;
  view: ConstantView;
}

type Traced = ConstantView | Untraceable | undefined;

/** Finds the tensors behind a graph's values, and who reads each of them. */
export class Constants {
  readonly #graph: Graph;
  readonly #cache = new Map<Value, Traced>();
  readonly #uses = new Map<TensorProto, ConstantUse[]>();
  readonly #outputs = new Set<TensorProto>();

  /** @throws {ResectError} exit 5 on a cycle. */
  constructor(graph: Graph) {
    this.#graph = graph;
    for (const scope of graph.scopes) {
      // Producers first: to trace back from the end of a long chain would overflow the call stack.
      for (const node of topologicalOrder(scope.graph)) this.#recordUses(node, scope);
      for (const value of scope.values.values()) {
        const traced = value.isOutput ? this.trace(value) : undefined;
        if (isView(traced)) this.#outputs.add(traced.tensor);
      }
    }
  }

  /**
   * The stored tensor behind `value`, through Identity, Cast, Transpose, Reshape and the like, and
   * DequantizeLinear. `undefined` when the value depends on the model's inputs.
   */
  trace(value: Value): Traced {
    if (!this.#cache.has(value)) this.#cache.set(value, this.#trace(value));
    return this.#cache.get(value);
  }

  /** Everything that reads `tensor`, whichever shape or copy of its name it goes by. */
  uses(tensor: TensorProto): readonly ConstantUse[] {
    return this.#uses.get(tensor) ?? [];
  }

  /** True when `tensor` itself is an output of the model or of a body. */
  isOutput(tensor: TensorProto): boolean {
    return this.#outputs.has(tensor);
  }

  #recordUses(node: NodeProto, scope: Scope): void {
    for (let index = 0; index < node.input.length; index++) {
      const value = this.#graph.input(scope, node, index);
      const view = value && this.trace(value);
      if (!isView(view)) continue;
      if (index === 0 && isPassThrough(node)) {
        // Followed further by whoever reads this node's output.
        const output = scope.values.get(node.output[0] ?? '');
        if (output && isView(this.trace(output))) continue;
      }
      const uses = this.#uses.get(view.tensor) ?? [];
      uses.push({ node, scope, index, view });
      this.#uses.set(view.tensor, uses);
    }
  }

  #trace(value: Value): Traced {
    if (value.initializer) {
      // From IR 4 on an initializer that is also an input is a default that a caller may override.
      return this.#stored(value.initializer, value);
    }
    const node = value.producer;
    if (!node) return value.isInput ? undefined : { reason: 'stored as a sparse tensor' };
    if (isStandard(node) && node.opType === 'Constant') {
      const tensor = attribute(node, 'value')?.t;
      if (tensor) return this.#stored(tensor, value);
      return { reason: 'stored as a list or a sparse tensor' };
    }
    const traceName = (name: string): Traced => {
      const read = name ? this.#graph.lookup(value.scope, name) : undefined;
      return read && this.trace(read);
    };
    if (!isPassThrough(node)) {
      const reads = dependencies(node);
      const constant = reads.length > 0 && reads.every(traceName);
      return constant ? { reason: `computed by ${opName(node)} from constants` } : undefined;
    }
    const traced = node.input.map(traceName);
    const [from] = traced;
    return isView(from) ? this.#follow(node, from, traced) : from;
  }

  #stored(tensor: TensorProto, source: Value): ConstantView {
    const { dtype, shape } = tensorInfo(tensor);
    return { tensor, dtype, axes: contiguous(shape), source };
  }

  /** `from` as it comes out of the pass-through `node`. */
  #follow(node: NodeProto, from: ConstantView, traced: Traced[]): Traced {
    switch (node.opType) {
      case 'Transpose': {
        const perm =
          intsAttribute(node, 'perm') ?? from.axes.map((_, i) => from.axes.length - 1 - i);
        if (new Set(perm).size !== from.axes.length || perm.some((i) => !from.axes[i]))
          return { reason: 'read through a Transpose that does not fit it' };
        return { ...from, axes: perm.map((i) => from.axes[i]) };
      }
      case 'DequantizeLinear':
        return dequantized(node, from, traced);
      case 'Reshape':
      case 'Squeeze':
      case 'Unsqueeze':
      case 'Flatten': {
        const shape = this.#reshaped(node, from, traced);
        if (!shape)
          return { reason: `read through a ${node.opType} to a shape that is not stored` };
        const axes = reshape(from.axes, shape);
        return axes
          ? { ...from, axes }
          : { reason: `read through a ${node.opType} after a Transpose` };
      }
      case 'Cast':
        return { ...from, dtype: dtypeOf(intAttribute(node, 'to', 0)) };
      default:
        return from; // Identity
    }
  }

  /** Output shape of a reshaping node, from its input's axes and its constant arguments. */
  #reshaped(node: NodeProto, from: ConstantView, traced: Traced[]): number[] | undefined {
    const sizes = from.axes.map((a) => a.size);
    const total = sizes.reduce((a, b) => a * b, 1);
    if (node.opType === 'Flatten') {
      const axis = wrap(intAttribute(node, 'axis', 1), sizes.length);
      const outer = sizes.slice(0, axis).reduce((a, b) => a * b, 1);
      return [outer, total / outer];
    }
    const argument = isView(traced[1]) ? smallInts(traced[1].tensor) : undefined;
    if (node.opType === 'Reshape') {
      const target = argument ?? intsAttribute(node, 'shape');
      if (!target) return undefined;
      const zeroCopies = intAttribute(node, 'allowzero', 0) === 0;
      const shape = target.map((d, i) => (d === 0 && zeroCopies ? (sizes[i] ?? 0) : d));
      const known = shape.filter((d) => d !== -1).reduce((a, b) => a * b, 1);
      return shape.map((d) => (d === -1 ? total / known : d));
    }
    const axes = argument ?? intsAttribute(node, 'axes');
    if (node.opType === 'Squeeze') {
      const drop = axes?.map((a) => wrap(a, sizes.length));
      return sizes.filter((size, i) => (drop ? !drop.includes(i) : size !== 1));
    }
    if (!axes) return undefined;
    const rank = sizes.length + axes.length;
    const added = new Set(axes.map((a) => wrap(a, rank)));
    const rest = [...sizes];
    return Array.from({ length: rank }, (_, i) => (added.has(i) ? 1 : (rest.shift() ?? 1)));
  }
}

const passThrough = new Set([
  'Identity',
  'Cast',
  'Transpose',
  'Reshape',
  'Squeeze',
  'Unsqueeze',
  'Flatten',
  'DequantizeLinear',
]);

const isPassThrough = (node: NodeProto): boolean =>
  isStandard(node) && passThrough.has(node.opType ?? '');

export const isView = (traced: Traced): traced is ConstantView =>
  traced !== undefined && 'tensor' in traced;

/** Values of a short integer tensor, such as a shape or axes. */
function smallInts(tensor: TensorProto): number[] | undefined {
  const { dtype, elements } = tensorInfo(tensor);
  const bytes = elements <= 64 && /^int(32|64)$/.test(dtype) ? readInlineBytes(tensor) : undefined;
  return bytes && Array.from(decode(bytes, dtype, elements), Number);
}

const wrap = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** Row-major axes of a shape. */
function contiguous(shape: readonly number[]): Axis[] {
  const axes: Axis[] = [];
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    axes.unshift({ size: shape[i], stride });
    stride *= shape[i];
  }
  return axes;
}

/** The axes under a new shape; undefined where they are not in storage order and more than 1-axes moved. */
function reshape(axes: Axis[], shape: number[]): Axis[] | undefined {
  const total = axes.reduce((n, a) => n * a.size, 1);
  if (shape.some((d) => d < 0) || shape.reduce((a, b) => a * b, 1) !== total) return undefined;
  const real = axes.filter((a) => a.size !== 1);
  const inOrder = real.every(
    (a, i) => a.stride === real.slice(i + 1).reduce((n, b) => n * b.size, 1),
  );
  if (inOrder) return contiguous(shape);
  const kept = shape.filter((d) => d !== 1);
  if (kept.length !== real.length || kept.some((d, i) => d !== real[i].size)) return undefined;
  return shape.map((d) => (d === 1 ? { size: 1, stride: 1 } : (real.shift() as Axis)));
}

function dequantized(node: NodeProto, from: ConstantView, traced: Traced[]): Traced {
  const [, scale, zeroPoint] = traced;
  if (!isView(scale) || (node.input[2] && !isView(zeroPoint))) {
    return { reason: 'quantized with a scale or zero point that is not stored' };
  }
  if (intAttribute(node, 'block_size', 0) > 0) return { reason: 'quantized block by block' };
  const perAxis = scale.axes.length > 0 && tensorInfo(scale.tensor).elements > 1;
  const axis = from.axes[wrap(intAttribute(node, 'axis', 1), from.axes.length)];
  if (perAxis && axis?.size !== tensorInfo(scale.tensor).elements) {
    return { reason: 'quantized with a scale that does not fit it' };
  }
  return {
    ...from,
    dtype: tensorInfo(scale.tensor).dtype,
    dequantization: {
      scale: scale.tensor,
      zeroPoint: isView(zeroPoint) ? zeroPoint.tensor : undefined,
      axis: perAxis ? axis : undefined,
    },
  };
}
