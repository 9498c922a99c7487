import { int, ints, string } from '../graph/build.js';
import { floatAttribute, intAttribute, intsAttribute, opName } from '../graph/nodes.js';
import { dtypeCode, type NodeProto } from '../onnx/index.js';
import {
  add,
  div,
  mul,
  neg,
  product,
  reduceSum,
  reshape,
  scale,
  sub,
  wrapAxis,
  zeros,
} from './emit.js';
import { perSampleWeightGradient } from './rules/conv-weight.js';
import type { Tape } from './tape.js';

/** A node that reads a parameter, and the gradient of what it puts out. */
export interface Use {
  node: NodeProto;
  /** dL/dy for each output. */
  dy: readonly (string | undefined)[];
  /** Which input the parameter is. */
  index: number;
  /** Number of samples. They run along the first axis of activations. */
  batch: number;
}

/**
 * The gradient of a parameter by each sample: [batch, ...dims of the parameter].
 * Undefined for a form that samples cannot be told apart in.
 */
type PerSampleRule = (t: Tape, use: Use, g: string) => string | undefined;

/**
 * Emits the gradients of a parameter by each sample of the batch, of one reading node.
 * @returns [batch, ...dims]; undefined where there is no way, and samples must be run one by one
 */
export function perSampleGradient(t: Tape, use: Use): string | undefined {
  const rule = rules[opName(use.node)];
  const [g] = use.dy;
  return Object.hasOwn(rules, opName(use.node)) && g !== undefined ? rule(t, use, g) : undefined;
}

/**
 * The same where the node computes something of parameters alone, and the gradient of what it puts out
 * is known by each sample.
 */
export function derivedPerSample(t: Tape, use: Use): string | undefined {
  const { node, dy, index, batch } = use;
  const [g] = dy;
  if (g === undefined || index !== 0) return undefined;
  const dims = t.dims(node.input[0]);
  switch (opName(node)) {
    case 'Gather':
      return gatherRows(t, use, g, [1]);
    case 'Slice':
      return sliced(t, node, g, dims);
    case 'Identity':
    case 'Reshape':
    case 'Squeeze':
    case 'Unsqueeze':
    case 'Flatten':
      return reshape(t, g, [batch, ...dims]);
    case 'Transpose': {
      const perm = intsAttribute(node, 'perm') ?? dims.map((_, i) => dims.length - 1 - i);
      const back = dims.map((_, i) => perm.indexOf(i) + 1);
      return t.emit('Transpose', [g], [ints('perm', [0, ...back])]);
    }
    default:
      return undefined;
  }
}

/** Zeros around what a Slice of step 1 took. */
function sliced(t: Tape, node: NodeProto, g: string, dims: readonly number[]): string | undefined {
  const [, starts, ends, axes, steps] = node.input;
  const from = t.constant(starts);
  const to = t.constant(ends);
  if (!from || !to || (steps && !t.constant(steps)?.every((step) => step === 1))) return undefined;
  const along = axes ? t.constant(axes) : from.map((_, i) => i);
  if (!along) return undefined;
  const before = dims.map(() => 0);
  const after = dims.map(() => 0);
  for (const [i, given] of along.entries()) {
    const axis = wrapAxis(given, dims.length);
    const size = dims[axis];
    const inside = (at: number) => Math.min(Math.max(at < 0 ? at + size : at, 0), size);
    before[axis] = inside(from[i]);
    after[axis] = size - Math.max(before[axis], inside(to[i]));
  }
  return t.emit('Pad', [g, t.ints([0, ...before, 0, ...after])]);
}

/** Embeddings of more elements than this, times the batch, are not kept for each sample. */
const largestTable = 2 ** 24;

/** [rows, width] as [batch, rows of a sample, width]; undefined where the rows are no samples. */
function bySample(t: Tape, x: string, dims: readonly number[], batch: number): string | undefined {
  const rows = product(dims.slice(0, -1));
  const width = dims[dims.length - 1];
  if (dims.length < 2 || rows % batch !== 0 || dims[0] % batch !== 0) return undefined;
  return reshape(t, x, [batch, rows / batch, width]);
}

/** Σ over the rows of a sample of xᵀ g: [batch, K, M]. */
function outer(t: Tape, a: string, g: string, transpose: boolean): string {
  return t.emit('FusedMatMul', transpose ? [g, a] : [a, g], [int('transA', 1)], 'com.microsoft');
}

/**
 * A parameter that was broadcast: the sum over every axis but those it has, and the batch. The first
 * axis may hold several rows of each sample.
 */
function sumBroadcast(
  t: Tape,
  g: string,
  [first, ...rest]: readonly number[],
  { node, index, batch }: Use,
): string | undefined {
  const to = t.dims(node.input[index]);
  const lead = rest.length + 1 - to.length;
  if (first === undefined || first % batch !== 0 || (lead === 0 && to[0] !== 1)) return undefined;
  const from = [batch, first / batch, ...rest];
  const axes = from.flatMap((size, i) =>
    i === 1 || (i > 1 && (i <= lead || (to[i - 1 - lead] === 1 && size !== 1))) ? [i] : [],
  );
  return reshape(t, reduceSum(t, reshape(t, g, from), axes, false), [batch, ...to]);
}

const rules: Record<string, PerSampleRule> = {
  Gemm: (t, use, g) => {
    const { node, index, batch } = use;
    const [a] = node.input;
    const out = t.dims(node.output[0]);
    if (index === 2) {
      const beta = floatAttribute(node, 'beta', 1);
      const dc = sumBroadcast(t, g, out, use);
      return dc && scale(t, dc, beta, a);
    }
    if (index !== 1 || intAttribute(node, 'transA', 0)) return undefined;
    const [x, dy] = [bySample(t, a, t.dims(a), batch), bySample(t, g, out, batch)];
    if (!x || !dy) return undefined;
    const dw = outer(t, x, dy, intAttribute(node, 'transB', 0) !== 0);
    return scale(t, dw, floatAttribute(node, 'alpha', 1), a);
  },
  MatMul: (t, { node, index, batch }, g) => {
    const [a, w] = node.input;
    if (index !== 1 || t.dims(w).length !== 2) return undefined;
    const x = bySample(t, a, t.dims(a), batch);
    const dy = bySample(t, g, t.dims(node.output[0]), batch);
    return x && dy && outer(t, x, dy, false);
  },
  Conv: (t, use, g) => {
    const out = t.dims(use.node.output[0]);
    if (out[0] !== use.batch) return undefined;
    if (use.index === 1) return perSampleWeightGradient(t, use.node, g);
    return reduceSum(
      t,
      g,
      out.slice(2).map((_, i) => i + 2),
      false,
    );
  },
  BatchNormalization: (t, { node, index, batch }, g) => {
    const [x, scaleName, , mean, variance] = node.input;
    const dims = t.dims(x);
    if (dims[0] !== batch) return undefined;
    const space = dims.slice(2).map((_, i) => i + 2);
    const total = (v: string) => reduceSum(t, v, space, false);
    if (index === 2) return total(g);
    const epsilon = t.scalar(floatAttribute(node, 'epsilon', 1e-5), scaleName);
    const deviation = t.emit('Sqrt', [add(t, variance, epsilon)]);
    return div(t, sub(t, total(mul(t, g, x)), mul(t, total(g), mean)), deviation);
  },
  LayerNormalization: (t, use, g) => {
    const { node, index } = use;
    const dims = t.dims(node.output[0]);
    if (index === 2) return sumBroadcast(t, g, dims, use);
    const [x, gamma] = node.input;
    const ones = t.floats(new Float32Array(product(t.dims(gamma))).fill(1), t.dims(gamma), gamma);
    const normal = t.emit('LayerNormalization', [x, ones], node.attribute);
    return sumBroadcast(t, mul(t, g, normal), dims, use);
  },
  Add: (t, use, g) => sumBroadcast(t, g, t.dims(use.node.output[0]), use),
  Sub: (t, use, g) => {
    const dx = sumBroadcast(t, g, t.dims(use.node.output[0]), use);
    return dx && (use.index === 1 ? neg(t, dx) : dx);
  },
  Mul: (t, use, g) => {
    const other = use.node.input[1 - use.index];
    return sumBroadcast(t, mul(t, g, other), t.dims(use.node.output[0]), use);
  },
  Gather: (t, use, g) => {
    const index = t.dims(use.node.input[1]);
    return index[0] === use.batch ? gatherRows(t, use, g, [use.batch]) : undefined;
  },
};

/**
 * The table of rows that a Gather read, by sample.
 * @param own the samples that the indices are of: [batch], or [1] where all samples read the same rows
 */
function gatherRows(
  t: Tape,
  { node, batch }: Use,
  g: string,
  own: readonly [number],
): string | undefined {
  const [table, indices] = node.input;
  const [rows, ...rest] = t.dims(table);
  const size = product(rest);
  if (intAttribute(node, 'axis', 0) !== 0 || batch * rows * size > largestTable) return undefined;
  // One table for all samples, in which each has rows of its own.
  const each = product(t.dims(indices)) / own[0];
  const number = t.emit('Mod', [
    t.emit('Cast', [reshape(t, indices, [...own, each])], [int('to', dtypeCode('int64'))]),
    t.ints([rows]),
  ]);
  const first = t.ints(Array.from({ length: batch }, (_, i) => i * rows));
  const row = reshape(t, add(t, number, reshape(t, first, [batch, 1])), [batch * each, 1]);
  const empty = zeros(t, [batch * rows, size], table);
  const sum = t.emit(
    'ScatterND',
    [empty, row, reshape(t, g, [batch * each, size])],
    [string('reduction', 'add')],
  );
  return reshape(t, sum, [batch, rows, ...rest]);
}
