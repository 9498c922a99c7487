import type { NodeProto } from '../../../onnx/index.js';
import { intAttribute, intsAttribute, opName } from '../../nodes.js';
import {
  type ChannelAnalysis,
  type CountSite,
  type Refusal,
  type Rule,
  repeated,
  wrapAxis,
} from '../analysis.js';

/** Ops that move channels to another place. */
export const layoutRules: Record<string, Rule> = {
  Reshape: (a, node) => reshape(a, node),
  Flatten: (a, node) => reshape(a, node),
  Squeeze: (a, node) => {
    const named = intsAttribute(node, 'axes') ?? node.input[1];
    // It would drop the channel axis, too, once a single channel is left.
    return named?.length ? reshape(a, node) : 'Squeeze does not name its axes';
  },
  Unsqueeze: (a, node) => reshape(a, node),
  Transpose: transpose,
  Concat: concat,
  Split: split,
  Slice: slice,
};

function reshape(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  const op = opName(node);
  const from = a.dims(node.input[0]);
  const to = a.dims(node.output[0]) ?? (from && targetDims(a, node, from));
  if (!from || !to) return `${op} between shapes that are not known`;
  const count = x.ids.length;
  const axis = count > 1 && from[x.axis] === count ? axisAfter(from, x.axis, to) : undefined;
  if (axis === undefined) return `${op} mixes its channels`;

  const each = to[axis] / count;
  let { ids, repeat } = x;
  if (each >= 1) {
    ids = repeated(ids, each);
    repeat *= each;
  } else {
    // What was flattened, or never was in one piece, becomes channels: each is a block of positions.
    const block = count / to[axis];
    for (let i = 0; i < count; i++) a.join(ids[i - (i % block)], ids[i]);
    ids = ids.filter((_, i) => i % block === 0);
    repeat = repeat % block === 0 ? repeat / block : 1;
  }
  if (op === 'Reshape') {
    const problem = nameCount(a, node, x.axis, axis, ids);
    if (problem) return problem;
  }
  a.define(node.output[0], { axis, rank: to.length, ids, repeat });
}

/** The shape after a Reshape to what the model computes from shapes. */
function targetDims(
  a: ChannelAnalysis,
  node: NodeProto,
  from: readonly number[],
): number[] | undefined {
  if (opName(node) !== 'Reshape') return undefined;
  const dims = a.inputVector(node, 1)?.map((dim, i) => {
    if (dim.kind === 'channels') return dim.ids.length;
    return dim.value === 0 ? from[i] : (dim.value ?? Number.NaN);
  });
  if (!dims?.every((d) => d > 0 || d === -1)) return undefined;
  const elements = from.reduce((n, d) => n * d, 1);
  const named = dims.reduce((n, d) => (d > 0 ? n * d : n), 1);
  return dims.map((d) => (d > 0 ? d : elements / named));
}

/**
 * The axis that channels run along under a new shape: the one before which there are as many elements
 * as before, and whose length is a multiple or a part of theirs. Undefined where channels mix.
 */
function axisAfter(
  from: readonly number[],
  axis: number,
  to: readonly number[],
): number | undefined {
  const before = from.slice(0, axis).reduce((n, d) => n * d, 1);
  for (let b = 0, n = 1; b < to.length && n <= before; n *= to[b++]) {
    if (n !== before || to[b] === 1) continue;
    const fits = to[b] % from[axis] === 0 || from[axis] % to[b] === 0;
    return fits ? b : undefined;
  }
  return undefined;
}

/** Notes where the target of a Reshape names the number of channels. @returns what stands in the way */
function nameCount(
  a: ChannelAnalysis,
  node: NodeProto,
  fromAxis: number,
  axis: number,
  ids: Int32Array,
): string | undefined {
  const target = a.vector(node, 1, 'shape');
  if (!target) return 'Reshape to a shape that is computed';
  const zeroCopies = intAttribute(node, 'allowzero', 0) === 0;
  for (const [i, dim] of target.entries()) {
    const copied = dim.kind === 'literal' && dim.value === 0 && zeroCopies;
    if (copied && (i === fromAxis) !== (i === axis))
      return 'Reshape copies its length to another axis';
    if (i !== axis && dim.kind === 'channels') return 'Reshape copies its length to another axis';
    if (i !== axis || copied) continue;
    if (dim.kind === 'other' || (dim.kind === 'channels' && !same(a, dim.ids, ids)))
      return 'Reshape to a number of channels that is computed';
    if (dim.kind === 'literal' && dim.value > 0)
      a.counts.push({ place: dim.place, index: dim.index, ids });
  }
  return undefined;
}

export const same = (a: ChannelAnalysis, x: Int32Array, y: Int32Array): boolean =>
  x.length === y.length && x.every((id, i) => a.units.find(id) === a.units.find(y[i]));

function transpose(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  const perm = intsAttribute(node, 'perm');
  const axis = perm ? perm.indexOf(x.axis) : x.rank - 1 - x.axis;
  if (axis < 0) return 'Transpose does not fit it';
  a.define(node.output[0], { ...x, axis });
}

function concat(a: ChannelAnalysis, node: NodeProto): Refusal {
  const inputs = node.input.map((_, i) => a.tracked(node, i));
  const first = inputs.find((x) => x !== undefined);
  if (!first) return;
  const axis = wrapAxis(intAttribute(node, 'axis', 1), first.rank);
  if (inputs.some((x) => x && x.axis !== first.axis)) return 'Concat of channels on different axes';
  if (axis !== first.axis) {
    if (inputs.some((x) => x?.ids.length !== first.ids.length))
      return 'Concat beside values that are not followed';
    for (const x of inputs) if (x) a.unify(first.ids, x.ids);
    a.define(node.output[0], first);
    return;
  }
  const parts: Int32Array[] = [];
  for (const [i, x] of inputs.entries()) {
    const size = a.dims(node.input[i])?.[axis];
    if (!x && size === undefined) return 'Concat with a value of unknown shape';
    const ids = x?.ids ?? a.start(size ?? 0);
    if (!x) a.block(ids, 'channels that are not followed');
    parts.push(ids);
  }
  const ids = Int32Array.from(parts.flatMap((part) => [...part]));
  const repeat = inputs.every((x) => x?.repeat === first.repeat) ? first.repeat : 1;
  a.define(node.output[0], { ...first, ids, repeat });
}

function split(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  if (wrapAxis(intAttribute(node, 'axis', 0), x.rank) !== x.axis) {
    for (const name of node.output) a.define(name, x);
    return;
  }
  const stored = a.vector(node, 1, 'split');
  const total = x.ids.length;
  const implied = equalParts(total, node.output.length);
  const sizes = stored ? stored.map((d) => (d.kind === 'literal' ? d.value : -1)) : implied;
  const sum = sizes.reduce((n, size) => n + size, 0);
  if ((node.input[1] && !stored) || sizes.some((n) => n < 1) || sum !== total)
    return 'Split into sizes that are computed';
  let end = 0;
  for (const [i, size] of sizes.entries()) {
    const ids = x.ids.subarray(end, end + size);
    end += size;
    a.define(node.output[i], { ...x, ids });
    const dim = stored?.[i];
    if (dim?.kind === 'literal') a.counts.push({ place: dim.place, index: dim.index, ids });
    else {
      const place = a.opset < 13 ? { node, attribute: 'split' } : { node, input: 1 };
      a.counts.push({ place, index: i, implied, ids });
    }
  }
}

/** Sizes of equal parts, the last one smaller where it does not come out even. */
function equalParts(total: number, parts: number): number[] {
  const size = Math.ceil(total / parts);
  return Array.from({ length: parts }, (_, i) => Math.min(size, total - i * size));
}

function slice(a: ChannelAnalysis, node: NodeProto): Refusal {
  const x = a.tracked(node, 0);
  if (!x) return;
  const starts = a.vector(node, 1, 'starts');
  const ends = a.vector(node, 2, 'ends');
  const named = a.ints(node, 3, 'axes');
  const steps = a.ints(node, 4);
  if (!starts || !ends || (node.input[3] && !named) || (node.input[4] && !steps))
    return 'Slice with bounds that are computed';
  const axes = (named ?? [...starts.keys()]).map((axis) => wrapAxis(axis, x.rank));
  const i = axes.indexOf(x.axis);
  if (i < 0) {
    a.define(node.output[0], x);
    return;
  }

  const total = x.ids.length;
  const [start, end] = [starts[i], ends[i]];
  if (start.kind !== 'literal' || end.kind !== 'literal' || (steps?.[i] ?? 1) !== 1)
    return 'Slice of its channels by bounds that are computed, or in steps';
  const clamp = (n: number) => Math.min(Math.max(n < 0 ? n + total : n, 0), total);
  const [from, to] = [clamp(start.value), clamp(end.value)];
  if (to <= from) return 'Slice of none of its channels';
  const bound = ({ place, index }: typeof start, position: number): CountSite => {
    return { place, index, ids: x.ids.subarray(0, position) };
  };
  if (from > 0) a.counts.push(bound(start, from));
  if (to < total) a.counts.push(bound(end, to));
  a.define(node.output[0], { ...x, ids: x.ids.subarray(from, to) });
}
