import { int, string } from '../../graph/build.js';
import { intAttribute, stringAttribute } from '../../graph/nodes.js';
import { dtypeCode } from '../../onnx/index.js';
import { axisOf } from '../axes.js';
import { pad, product, reshape, reshapeFrom, transpose, wrapAxis, zeros } from '../emit.js';
import { type Rule, refuse, single } from '../rule.js';
import { extraOutput, type Tape } from '../tape.js';

/** y = x[.., indices, ..]: dx = g, added up at the indices. */
export const Gather = single((t, g, { node }) => {
  const [x, indices] = node.input;
  const dims = t.dims(x);
  const axis = axisOf(node, dims.length, 0);
  const before = dims.slice(0, axis);
  const after = dims.slice(axis + 1);
  const count = product(t.dims(indices));
  // g with one axis for all indices.
  const flat = reshapeFrom(t, g, t.dims(node.output[0]), [...before, count, ...after]);

  const start = runStart(t.constant(indices), dims[axis]);
  if (start !== undefined) {
    const at = (n: number) => dims.map((_, i) => (i === axis ? n : 0));
    return [pad(t, flat, at(start), at(dims[axis] - start - count))];
  }
  // ScatterND adds along the first axis.
  const first = [axis, ...dims.keys()].filter((a, i) => i === 0 || a !== axis);
  const target = zeros(
    t,
    first.map((a) => dims[a]),
    x,
  );
  const places = reshape(t, int64(t, indices), [count, 1]);
  const sum = scatterAdd(t, target, places, transpose(t, flat, first));
  return [
    transpose(
      t,
      sum,
      dims.map((_, a) => first.indexOf(a)),
    ),
  ];
});

/** The first of indices that follow one another, as a single one does; undefined for others. */
function runStart(indices: readonly number[] | undefined, size: number): number | undefined {
  if (!indices?.length) return undefined;
  const start = wrapAxis(indices[0], size);
  return indices.every((v, i) => wrapAxis(v, size) === start + i) ? start : undefined;
}

/** Along one axis, y = x at the indices: dx = g, added up at the indices. */
export const GatherElements = single((t, g, { node }) => {
  const [x, indices] = node.input;
  const axis = int('axis', intAttribute(node, 'axis', 0));
  const target = zeros(t, t.dims(x), x);
  return [t.emit('ScatterElements', [target, indices, g], [axis, string('reduction', 'add')])];
});

/** y = slices of x at index tuples: dx = g, added up at the indices. */
export const GatherND = single((t, g, { node }) => {
  const [x, indices] = node.input;
  const dims = t.dims(x);
  const batch = t.dims(indices).slice(0, intAttribute(node, 'batch_dims', 0));
  const places = batch.length ? withBatch(t, indices, batch) : indices;
  return [scatterAdd(t, zeros(t, dims, x), places, g)];
});

/** Index tuples with the place of each in the batch before it. */
function withBatch(t: Tape, indices: string, batch: readonly number[]): string {
  const dims = t.dims(indices);
  const lead = dims.slice(0, -1);
  const inner = product(dims.slice(batch.length, -1));
  const places: number[] = [];
  for (let i = 0; i < product(lead); i++) {
    let rest = Math.floor(i / inner);
    const place = batch.map(() => 0);
    for (let k = batch.length - 1; k >= 0; k--) {
      place[k] = rest % batch[k];
      rest = Math.floor(rest / batch[k]);
    }
    places.push(...place);
  }
  const inBatch = reshape(t, t.ints(places), [...lead, batch.length]);
  return t.emit('Concat', [inBatch, indices], [int('axis', dims.length - 1)]);
}

const scatterAdd = (t: Tape, target: string, indices: string, updates: string): string =>
  t.emit('ScatterND', [target, indices, updates], [string('reduction', 'add')]);

/**
 * y = x with updates written to the indices, or added: dx = g, without what was overwritten;
 * dupdates = g at the indices.
 */
const scattered = (gather: 'GatherElements' | 'GatherND'): Rule =>
  single((t, g, { node, need }) => {
    const [x, indices, updates] = node.input;
    const reduction = stringAttribute(node, 'reduction', 'none');
    if (reduction !== 'none' && reduction !== 'add') refuse(node, `reduction ${reduction}`);
    const axis = node.attribute.filter(({ name }) => name === 'axis');
    const overwritten = () =>
      t.emit(node.opType ?? '', [g, indices, zeros(t, t.dims(updates), x)], axis);
    return [
      need[0] ? (reduction === 'add' ? g : overwritten()) : undefined,
      undefined,
      need[2] ? t.emit(gather, [g, indices], axis) : undefined,
    ];
  });
export const ScatterElements = scattered('GatherElements');
export const ScatterND = scattered('GatherND');

/** The values: dx = g at their indices. */
export const TopK = single((t, g, { node }) => {
  const [x] = node.input;
  const axis = int('axis', intAttribute(node, 'axis', -1));
  return [
    t.emit('ScatterElements', [zeros(t, t.dims(x), x), extraOutput(node, 1), g], [axis]),
    undefined,
  ];
});

/** Turns round the beginning of each sequence: dx = g, turned back. */
export const ReverseSequence = single((t, g, { node }) => [
  t.emit('ReverseSequence', [g, node.input[1]], node.attribute),
]);

const int64 = (t: Tape, indices: string): string =>
  t.dtype(indices) === 'int64'
    ? indices
    : t.emit('Cast', [indices], [int('to', dtypeCode('int64'))]);
