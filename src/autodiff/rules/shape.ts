import { int, string } from '../../graph/build.js';
import { intAttribute, intsAttribute, stringAttribute } from '../../graph/nodes.js';
import type { NodeProto } from '../../onnx/index.js';
import { axesOf, axisOf, constantInput } from '../axes.js';
import { pullAxis } from '../axis-map.js';
import {
  pad,
  reduceSum,
  reshape,
  reshapeFrom,
  slice,
  transpose,
  unbroadcast,
  zeros,
} from '../emit.js';
import { type Rule, refuse, single } from '../rule.js';
import type { Tape } from '../tape.js';

/** The same elements in other dims: dx = g in the dims of x. */
const reshaped: Rule = single((t, g, { node: { input, output } }) => [
  reshapeFrom(t, g, t.dims(output[0]), t.dims(input[0])),
]);
export const Reshape = reshaped;
export const Flatten = reshaped;
export const Squeeze = reshaped;
export const Unsqueeze = reshaped;

/** Axis i of y is axis perm[i] of x: dx = g, transposed back. */
export const Transpose = single((t, g, { node }) => {
  const perm =
    intsAttribute(node, 'perm') ??
    t
      .dims(node.input[0])
      .map((_, i) => i)
      .reverse();
  const inverse = perm.map((_, axis) => perm.indexOf(axis));
  return [transpose(t, g, inverse)];
});

/** dx = the part of g that came from x. */
export const Concat = single((t, g, { node, need }) => {
  const rank = t.dims(node.output[0]).length;
  const axis = axisOf(node, rank, 0);
  const sizes = node.input.map((x) => t.dims(x)[axis]);
  if (need.filter(Boolean).length > 1)
    return t.emitAll('Split', [g, t.ints(sizes)], sizes.length, [int('axis', axis)]);
  let start = 0;
  return sizes.map((size, i) => {
    start += size;
    return need[i] ? slice(t, g, [axis], [start - size], [start]) : undefined;
  });
});

/** dx = the gradients of the parts one after another, zeros for those without. */
export const Split: Rule = (t, { node, dy }) => {
  const [x] = node.input;
  const rank = t.dims(x).length;
  // An output without a name is a part as well, whose size the graph does not know.
  if (node.output.includes('')) refuse(node, 'an output that is left out');
  const parts = node.output.map((y, i) => dy[i] ?? zeros(t, t.dims(y), x));
  return [t.emit('Concat', parts, [int('axis', axisOf(node, rank, 0))])];
};

/** dx = g, summed over the stretched axes. */
export const Expand = single((t, g, { node: { input, output } }) => [
  unbroadcast(t, g, t.dims(output[0]), t.dims(input[0])),
]);

/** dx = the sum of the copies' gradients. */
export const Tile = single((t, g, { node: { input, output } }) => {
  const dims = t.dims(input[0]);
  const copies = t.dims(output[0]).map((size, i) => (dims[i] === 0 ? 1 : size / dims[i]));
  // [copies, size] of each axis that is repeated.
  const apart = dims.flatMap((size, i) => (copies[i] === 1 ? [size] : [copies[i], size]));
  let at = 0;
  const axes = copies.flatMap((n) => {
    at += n === 1 ? 1 : 2;
    return n === 1 ? [] : [at - 2];
  });
  return [axes.length ? reduceSum(t, reshape(t, g, apart), axes, false) : g];
});

/** How a Slice walks along one axis of size `size`. */
interface Walk {
  axis: number;
  size: number;
  start: number;
  step: number;
  /** How many elements it takes. */
  count: number;
}

/** dx = g at the elements that were taken, 0 elsewhere. */
export const Slice = single((t, g, { node }) => {
  const dims = t.dims(node.input[0]);
  const counts = t.dims(node.output[0]);
  if (counts.includes(0)) return [zeros(t, dims, node.input[0])];
  const walks = walksOf(t, node, dims, counts);
  const back = walks.filter(({ step }) => step < 0);
  const forward = back.length ? reversed(t, g, back) : g;
  const begins = dims.map(() => 0);
  const ends = dims.map(() => 0);
  for (const { axis, size, start, step, count } of walks) {
    begins[axis] = step < 0 ? start + (count - 1) * step : start;
    ends[axis] = size - begins[axis] - count * Math.abs(step);
  }
  return [pad(t, spread(t, forward, counts, walks), begins, ends)];
});

/** @param counts the dims of the output */
function walksOf(
  t: Tape,
  node: NodeProto,
  dims: readonly number[],
  counts: readonly number[],
): Walk[] {
  const starts = constantInput(t, node, 1, 'starts') ?? [];
  const axes = axesOf(t, node, dims.length, 3) ?? starts.map((_, i) => i);
  const steps = constantInput(t, node, 4, 'steps');
  return axes.map((axis, i) => {
    const size = dims[axis];
    const step = steps?.[i] ?? 1;
    const start = starts[i] < 0 ? starts[i] + size : starts[i];
    const last = step < 0 ? size - 1 : size;
    return { axis, size, step, count: counts[axis], start: Math.min(Math.max(start, 0), last) };
  });
}

/** `g` with the order along some axes reversed. */
const reversed = (t: Tape, g: string, walks: readonly Walk[]): string =>
  slice(
    t,
    g,
    walks.map(({ axis }) => axis),
    walks.map(() => -1),
    walks.map(({ count }) => -count - 1),
    walks.map(() => -1),
  );

/** `g [...dims]` with |step| - 1 zeros behind every element along each axis that is walked in steps. */
function spread(t: Tape, g: string, dims: readonly number[], walks: readonly Walk[]): string {
  const stride = dims.map((_, i) => Math.abs(walks.find(({ axis }) => axis === i)?.step ?? 1));
  if (stride.every((s) => s === 1)) return g;
  const apart = dims.flatMap((size, i) => (stride[i] === 1 ? [size] : [size, 1]));
  const room = dims.flatMap((_, i) => (stride[i] === 1 ? [0] : [0, stride[i] - 1]));
  const padded = pad(
    t,
    reshape(t, g, apart),
    room.map(() => 0),
    room,
  );
  return reshape(
    t,
    padded,
    dims.map((size, i) => size * stride[i]),
  );
}

/**
 * dx = the part of g that is not padding; of cells that were copied into the padding (edge, reflect,
 * wrap) with what the copies got.
 */
export const Pad = single((t, g, { node, need }) => {
  if (need[2]) refuse(node, 'a padding value that is trained');
  const [x] = node.input;
  const dims = t.dims(x);
  const pads = constantInput(t, node, 1, 'pads') ?? [];
  const axes = axesOf(t, node, dims.length, 3) ?? dims.map((_, i) => i);
  const begins = dims.map(() => 0);
  const ends = dims.map(() => 0);
  for (const [i, axis] of axes.entries()) {
    begins[axis] = pads[i];
    ends[axis] = pads[i + axes.length];
  }
  const mode = stringAttribute(node, 'mode', 'constant');
  if (mode === 'constant')
    return [
      pad(
        t,
        g,
        begins.map((n) => -n),
        ends.map((n) => -n),
      ),
    ];
  const sources: ((i: number, size: number) => number) | undefined = copied[mode];
  if (!sources) refuse(node, `mode ${mode}`);
  if (pads.some((n) => n < 0)) refuse(node, `mode ${mode} and negative pads`);
  const current = [...t.dims(node.output[0])];
  let result = g;
  for (const [axis, columns] of dims.entries()) {
    const rows = current[axis];
    if (rows === columns) continue;
    const values = new Float64Array(rows * columns);
    for (let i = 0; i < rows; i++) values[i * columns + sources(i - begins[axis], columns)] = 1;
    result = pullAxis(t, result, current, axis, { rows, columns, values }, x);
    current[axis] = columns;
  }
  return [result];
});

/** Where the cell `i` of a padded axis comes from, counted from the first cell of its `size` own. */
const copied: Record<string, (i: number, size: number) => number> = {
  edge: (i, size) => Math.min(Math.max(i, 0), size - 1),
  reflect: (i, size) => {
    const period = Math.max(1, 2 * (size - 1));
    const phase = ((i % period) + period) % period;
    return Math.min(phase, period - phase);
  },
  wrap: (i, size) => ((i % size) + size) % size,
};

/** Channels in blocks of b x b become pixels: dx = g, from space back to depth. */
export const DepthToSpace = single((t, g, { node }) => {
  const b = intAttribute(node, 'blocksize', 1);
  if (stringAttribute(node, 'mode', 'DCR') === 'DCR')
    return [t.emit('SpaceToDepth', [g], [int('blocksize', b)])];
  const [n, c, h, w] = t.dims(node.input[0]);
  const blocks = reshape(t, g, [n, c / (b * b), h, b, w, b]);
  return [reshape(t, transpose(t, blocks, [0, 1, 3, 5, 2, 4]), [n, c, h, w])];
});

/** dx = g, from depth back to space. */
export const SpaceToDepth = single((t, g, { node }) => [
  t.emit(
    'DepthToSpace',
    [g],
    [int('blocksize', intAttribute(node, 'blocksize', 1)), string('mode', 'DCR')],
  ),
]);

/** dx = the same triangle of g. */
export const Trilu = single((t, g, { node }) => [
  t.emit('Trilu', [g, ...node.input.slice(1)], node.attribute),
]);
