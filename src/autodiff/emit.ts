import { int, ints } from '../graph/build.js';
import { dtypeCode } from '../onnx/index.js';
import type { Tape } from './tape.js';

/** Short forms of what rules emit most. They work alike in every opset from 17 on. */

export const add = (t: Tape, a: string, b: string): string => t.emit('Add', [a, b]);
export const sub = (t: Tape, a: string, b: string): string => t.emit('Sub', [a, b]);
export const mul = (t: Tape, a: string, b: string): string => t.emit('Mul', [a, b]);
export const div = (t: Tape, a: string, b: string): string => t.emit('Div', [a, b]);
export const neg = (t: Tape, x: string): string => t.emit('Neg', [x]);

/** `x` times a number; `like` is a forward value of the same element type. */
export const scale = (t: Tape, x: string, factor: number, like: string): string =>
  factor === 1 ? x : mul(t, x, t.scalar(factor, like));

/** `x` plus a number. */
export const plus = (t: Tape, x: string, number: number, like: string): string =>
  add(t, x, t.scalar(number, like));

/** A number minus `x`. */
export const minus = (t: Tape, number: number, x: string, like: string): string =>
  sub(t, t.scalar(number, like), x);

/** `x` in the element type of `like`. */
export const cast = (t: Tape, x: string, like: string): string =>
  t.emit('Cast', [x], [int('to', dtypeCode(t.dtype(like)))]);

export const where = (t: Tape, condition: string, yes: string, no: string): string =>
  t.emit('Where', [condition, yes, no]);

export const reshape = (t: Tape, x: string, dims: readonly number[]): string =>
  // 0 would copy a dimension: with allowzero it is an empty axis.
  t.emit('Reshape', [x, t.ints(dims)], dims.includes(0) ? [int('allowzero', 1)] : []);

/** `x`, whose dims are `from`, with the dims `to`; nothing where they agree. */
export const reshapeFrom = (
  t: Tape,
  x: string,
  from: readonly number[],
  to: readonly number[],
): string => (sameDims(from, to) ? x : reshape(t, x, to));

export const transpose = (t: Tape, x: string, perm: readonly number[]): string =>
  perm.every((p, i) => p === i) ? x : t.emit('Transpose', [x], [ints('perm', perm)]);

/** Sum over `axes`; no axes: `x` itself. */
export const reduceSum = (
  t: Tape,
  x: string,
  axes: readonly number[],
  keepdims: boolean,
): string =>
  axes.length === 0
    ? x
    : t.emit('ReduceSum', [x, t.ints(axes)], [int('keepdims', keepdims ? 1 : 0)]);

export const expand = (t: Tape, x: string, dims: readonly number[]): string =>
  t.emit('Expand', [x, t.ints(dims)]);

export const slice = (
  t: Tape,
  x: string,
  axes: readonly number[],
  starts: readonly number[],
  ends: readonly number[],
  steps?: readonly number[],
): string =>
  t.emit('Slice', [x, ...[starts, ends, axes, ...(steps ? [steps] : [])].map((v) => t.ints(v))]);

/** `x` with that many zeros before and after each axis; negative numbers take away. */
export function pad(
  t: Tape,
  x: string,
  begins: readonly number[],
  ends: readonly number[],
): string {
  const axes = begins.flatMap((n, axis) => (n !== 0 || ends[axis] !== 0 ? [axis] : []));
  if (axes.length === 0) return x;
  if ([...begins, ...ends].some((n) => n > 0))
    return t.emit('Pad', [x, t.ints([...begins, ...ends])]);
  // A Slice is faster than a Pad that only takes away.
  return slice(
    t,
    x,
    axes,
    axes.map((axis) => -begins[axis]),
    axes.map((axis) => ends[axis] || Number.MAX_SAFE_INTEGER),
  );
}

/**
 * The gradient of a broadcast: `g [...from]` summed to the dims `to` that were stretched to `from`.
 */
export function unbroadcast(
  t: Tape,
  g: string,
  from: readonly number[],
  to: readonly number[],
): string {
  const lead = from.length - to.length;
  const axes = from.flatMap((size, i) =>
    i < lead || (to[i - lead] === 1 && size !== 1) ? [i] : [],
  );
  if (axes.length === 0) return g;
  const reduced = reduceSum(t, g, axes, lead === 0);
  if (lead === 0) return reduced;
  const left = from.filter((_, i) => !axes.includes(i));
  return reshapeFrom(t, reduced, left, to);
}

/** The dims that two shapes broadcast to. */
export function broadcastDims(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const [x, y] = [a[i - rank + a.length] ?? 1, b[i - rank + b.length] ?? 1];
    return x === 1 ? y : x;
  });
}

/** Zeros `[...dims]` of the element type of `like`. */
export const zeros = (t: Tape, dims: readonly number[], like: string): string =>
  expand(t, t.scalar(0, like), dims);

export const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

export const sameDims = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((d, i) => d === b[i]);

/** A non-negative axis. */
export const wrapAxis = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);
