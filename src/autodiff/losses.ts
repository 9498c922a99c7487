import { int, string } from '../graph/build.js';
import { intAttribute, opName } from '../graph/nodes.js';
import type { NodeProto } from '../onnx/index.js';
import {
  add,
  div,
  mul,
  neg,
  product,
  reduceSum,
  reshape,
  reshapeFrom,
  scale,
  sub,
  wrapAxis,
  zeros,
} from './emit.js';
import type { Head } from './gradient-graph.js';
import type { Tape, TensorType } from './tape.js';

/*
 * A loss is L = Σ_i w_i l_i over the rows of an output: w_i = 1/N makes it the mean over N rows, 0 leaves
 * out padding, a negative weight ascends. Each loss emits l [rows] and, by hand, dL/d(output): fewer
 * passes over large outputs than the rules of its parts would take.
 *
 * What it is fed: the targets as `targetInput`, the weights w [rows] as `weightInput`. It puts out
 * `lossOutput`, L, and `rowsOutput`, l [rows].
 */

export const targetInput = 'resect/target';
export const weightInput = 'resect/weight';
export const lossOutput = 'resect/loss';
export const rowsOutput = 'resect/losses';

export const lossNames = [
  'cross-entropy',
  'likelihood',
  'binary',
  'mse',
  'kl',
  'cosine',
  'squared-norm',
] as const;

/**
 * - `cross-entropy`: -log softmax(z)[target]; z are logits [..., C], every leading axis a row, target
 *   int64 [rows]
 * - `likelihood`: -log max(p[target], 1e-12), for outputs that are probabilities already
 * - `binary`: mean over a row of the cross-entropy of sigmoid(z); target float [rows, ...] in [0, 1]
 * - `mse`: mean over a row of (z - target)^2; target float [rows, ...]
 * - `kl`: KL(target || softmax(z)); target float [rows, C], probabilities
 * - `cosine`: 1 - cos(z, target); target float [rows, ...]
 * - `squared-norm`: Σ z^2 over a row, without a target
 *
 * Rows are the first axis, but for losses over classes, where they are all axes but the last.
 */
export type LossName = (typeof lossNames)[number];

/** A row-wise loss before it is weighted: l and dl/dz, and the dims they work in. */
interface Terms {
  /** [M, 1] */
  rows: string;
  /** [M, F], times the weights. */
  gradient: string;
}

/** An output as rows, and what its loss is weighted with. */
interface Rows {
  /** [rows, width] */
  z: string;
  rows: number;
  width: number;
  /** [rows, 1] */
  weight: string;
  /** A forward value of the same element type. */
  like: string;
}

const losses: Record<LossName, (t: Tape, output: Rows) => Terms> = {
  'cross-entropy': (t, { z, rows, weight }) => {
    const label = reshape(t, targetInput, [rows, 1]);
    const logp = t.emit('LogSoftmax', [z], [int('axis', 1)]);
    const p = mul(t, t.emit('Exp', [logp]), weight);
    return {
      rows: neg(t, t.emit('GatherElements', [logp, label], [int('axis', 1)])),
      gradient: t.emit(
        'ScatterElements',
        [p, label, neg(t, weight)],
        [int('axis', 1), string('reduction', 'add')],
      ),
    };
  },
  likelihood: (t, { z, rows, width, weight, like }) => {
    const label = reshape(t, targetInput, [rows, 1]);
    const floor = t.scalar(1e-12, like);
    const p = t.emit('Max', [t.emit('GatherElements', [z, label], [int('axis', 1)]), floor]);
    return {
      rows: neg(t, t.emit('Log', [p])),
      gradient: t.emit(
        'ScatterElements',
        [zeros(t, [rows, width], like), label, neg(t, div(t, weight, p))],
        [int('axis', 1)],
      ),
    };
  },
  binary: (t, output) => {
    const { z, width, weight, like } = output;
    const target = targets(t, output);
    // softplus(z) - z t, by the form that cannot overflow: max(z, 0) + log(1 + exp(-|z|)) - z t
    const tail = t.emit('Exp', [neg(t, t.emit('Abs', [z]))]);
    const softplus = add(
      t,
      t.emit('Max', [z, t.scalar(0, like)]),
      t.emit('Log', [add(t, tail, t.scalar(1, like))]),
    );
    return {
      rows: meanOfRow(t, sub(t, softplus, mul(t, z, target)), output),
      gradient: mul(t, sub(t, t.emit('Sigmoid', [z]), target), scale(t, weight, 1 / width, like)),
    };
  },
  mse: (t, output) => {
    const { z, width, weight, like } = output;
    const error = sub(t, z, targets(t, output));
    return {
      rows: meanOfRow(t, mul(t, error, error), output),
      gradient: mul(t, error, scale(t, weight, 2 / width, like)),
    };
  },
  kl: (t, output) => {
    const { z, weight, like } = output;
    const target = targets(t, output);
    const logq = t.emit('LogSoftmax', [z], [int('axis', 1)]);
    // 0 log 0 = 0: the smallest normal number stands in for 0.
    const logp = t.emit('Log', [t.emit('Max', [target, t.scalar(1.2e-38, like)])]);
    const mass = reduceSum(t, target, [1], true);
    return {
      rows: reduceSum(t, mul(t, target, sub(t, logp, logq)), [1], true),
      gradient: mul(t, sub(t, mul(t, t.emit('Exp', [logq]), mass), target), weight),
    };
  },
  cosine: (t, output) => {
    const { z, weight, like } = output;
    const target = targets(t, output);
    const dot = (a: string, b: string) => reduceSum(t, mul(t, a, b), [1], true);
    // As torch: norms below 1e-8 count as 1e-8.
    const norm = (x: string) => t.emit('Max', [t.emit('Sqrt', [dot(x, x)]), t.scalar(1e-8, like)]);
    const [a, b] = [norm(z), norm(target)];
    const ab = mul(t, a, b);
    const cos = div(t, dot(z, target), ab);
    const slope = sub(t, mul(t, z, div(t, cos, mul(t, a, a))), div(t, target, ab));
    return { rows: sub(t, t.scalar(1, like), cos), gradient: mul(t, slope, weight) };
  },
  'squared-norm': (t, { z, weight, like }) => ({
    rows: reduceSum(t, mul(t, z, z), [1], true),
    gradient: mul(t, z, scale(t, weight, 2, like)),
  }),
};

const targets = (t: Tape, { rows, width }: Rows): string => reshape(t, targetInput, [rows, width]);

const meanOfRow = (t: Tape, x: string, { width, like }: Rows): string =>
  scale(t, reduceSum(t, x, [1], true), 1 / width, like);

const overClasses = new Set<LossName>(['cross-entropy', 'likelihood', 'kl']);
const byIndex = new Set<LossName>(['cross-entropy', 'likelihood']);

/** How many rows a loss sees in an output of these dims, and how many values in a row. */
export function lossShape(name: LossName, dims: readonly number[]): [rows: number, width: number] {
  const lead = overClasses.has(name) ? dims.length - 1 : 1;
  return [product(dims.slice(0, lead)), product(dims.slice(lead))];
}

/** Emits a loss of `output`, a value of the forward graph of rank 1 or more. */
export function lossHead(t: Tape, name: LossName, output: string): Head {
  const dims = t.dims(output);
  const dtype = t.dtype(output);
  const [rows, width] = lossShape(name, dims);
  const flat = [rows, width];
  const terms = losses[name](t, {
    z: reshapeFrom(t, output, dims, flat),
    rows,
    width,
    weight: reshape(t, weightInput, [rows, 1]),
    like: output,
  });
  const weighted = mul(t, terms.rows, reshape(t, weightInput, [rows, 1]));
  t.emitAs(lossOutput, 'ReduceSum', [weighted], [int('keepdims', 0)]);
  t.emitAs(rowsOutput, 'Reshape', [terms.rows, t.ints([rows])]);
  const target: TensorType = byIndex.has(name)
    ? { dtype: 'int64', dims: [rows] }
    : { dtype, dims: flat };
  return {
    seeds: new Map([[output, reshapeFrom(t, terms.gradient, flat, dims)]]),
    inputs: [
      ...(name === 'squared-norm' ? [] : [{ name: targetInput, type: target }]),
      { name: weightInput, type: { dtype, dims: [rows] } },
    ],
    outputs: [lossOutput, rowsOutput],
  };
}

/** Ops at the end of a graph that make of scores what a loss makes of them itself, and better. */
const ownActivation: Partial<Record<LossName, readonly string[]>> = {
  'cross-entropy': ['Softmax', 'LogSoftmax'],
  kl: ['Softmax', 'LogSoftmax'],
  'squared-norm': ['Softmax', 'LogSoftmax'],
  binary: ['Sigmoid'],
};

/**
 * The value that a loss is to be computed from, which stands before what turns scores into
 * probabilities at the end of a graph: the input of a Softmax over the last axis for `cross-entropy`,
 * `kl` and `squared-norm`, of a Sigmoid for `binary`; the output for the others.
 * @param producers of the forward graph's values
 */
export function beforeActivation(
  t: Tape,
  name: LossName,
  producers: ReadonlyMap<string, NodeProto>,
  output: string,
): string {
  let end = producers.get(output);
  while (end && opName(end) === 'Identity') end = producers.get(end.input[0]);
  const makes = (node: NodeProto) => ownActivation[name]?.includes(opName(node));
  if (!end) return output;
  if (makes(end)) return opName(end) === 'Sigmoid' || isOverLast(t, end) ? end.input[0] : output;
  // What normalisation makes of a Softmax of old, which worked on a matrix.
  const rows = opName(end) === 'Reshape' ? producers.get(end.input[0]) : undefined;
  const flat = rows && producers.get(rows.input[0]);
  if (!rows || !makes(rows) || !isOverLast(t, rows) || !flat || opName(flat) !== 'Flatten')
    return output;
  const width = t.dims(rows.output[0]).at(-1);
  return t.dims(output).at(-1) === width ? flat.input[0] : output;
}

function isOverLast(t: Tape, node: NodeProto): boolean {
  const rank = t.dims(node.output[0]).length;
  return wrapAxis(intAttribute(node, 'axis', -1), rank) === rank - 1;
}
