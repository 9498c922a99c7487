import { FilterTrace, weightMixing } from '../../../src/methods/compress/filters-behind.js';
import { outputAffine } from '../../../src/methods/compress/maths/batch-norm.js';
import { readNetwork } from '../../../src/methods/compress/network.js';
import { encodeModel, type ModelProto, parseModel } from '../../../src/onnx/index.js';
import { type Network, network } from '../../graph/channels/models.js';
import { distance, naiveInverse, times, transposed } from './maths/numbers.js';
import { walk } from './statistics/support.js';
import { randomized } from './support.js';

const alphas = { alpha1: 0.02, alpha2: 0.005 };

/** The filters of a layer by the name of its weight, each times its scale, and its shifts. */
interface Rows {
  filters: number[][];
  shift: number[];
}

async function traced(build: (n: Network) => string): Promise<{
  trace: FilterTrace;
  rows: (weight: string) => Rows;
  reads: string;
}> {
  const proto: ModelProto = randomized(network(build), 5);
  const model = parseModel(encodeModel(proto));
  const visits = await walk(model);
  const trace = new FilterTrace(await readNetwork(model));
  for (const visit of visits.values()) trace.add(visit);
  const rows = (weight: string): Rows => {
    const { layer } = visits.get(weight)!;
    const { weights, outputs } = layer.filters;
    const { scale, shift } = outputAffine(outputs, layer.norm, layer.bias);
    const width = weights.length / outputs;
    const filters = Array.from({ length: outputs }, (_, i) =>
      Array.from(weights.subarray(i * width, (i + 1) * width), (w) => scale[i] * w),
    );
    return { filters, shift: [...shift] };
  };
  return { trace, rows, reads: proto.graph!.node.at(-1)!.input[0] };
}

/** S in closed form, the plain way: (G·Gᵀ + α₁·b·bᵀ + α₂·τ·S0)·(…)⁻¹ over the kept channels. */
function closedForm({ filters, shift }: Rows, kept: readonly number[]): number[][] {
  const dot = (i: number, j: number) =>
    filters[i].reduce((sum, w, k) => sum + w * filters[j][k], alphas.alpha1 * shift[i] * shift[j]);
  const norm = (i: number) => filters[i].reduce((sum, w) => sum + w * w, 0);
  const ridge = (alphas.alpha2 * kept.reduce((sum, i) => sum + norm(i), 0)) / kept.length;
  const identity = (i: number, j: number) => (i === j ? ridge : 0);
  const n = kept.length;
  const gram = Float64Array.from(kept.flatMap((i) => kept.map((j) => dot(i, j) + identity(i, j))));
  const cross = Float64Array.from(
    filters.flatMap((_, i) => kept.map((j) => dot(i, j) + identity(i, j))),
  );
  const s = times(cross, transposed(naiveInverse(gram), n), filters.length, n);
  return filters.map((_, i) => [...s.subarray(i * n, (i + 1) * n)]);
}

const mixing = (trace: FilterTrace, name: string, kept: number[], channels: number) =>
  weightMixing(trace.behind(name), Uint32Array.from(kept), channels, 'udfc', {
    ...alphas,
    blocks: 1,
  })!;

const norm = (n: Network, x: string, to: number, kernel: number, from = 3) =>
  n.batchNorm(n.conv(x, from, to, { kernel }), to);

test('activations, pooling and shapes are passed over', async () => {
  const { trace, rows, reads } = await traced((n) => {
    const relu = n.op('Relu', [norm(n, 'x', 7, 3)]);
    const pooled = n.op('MaxPool', [relu], { kernel_shape: [2, 2] });
    return n.conv(n.op('Resize', [pooled, '', n.floats(1, 1, 2, 2)]), 7, 2);
  });
  const kept = [0, 2, 3, 6];
  const { s } = mixing(trace, reads, kept, 7);
  expect(distance(s, closedForm(rows('w0'), kept).flat())).toBeLessThan(1e-9);
});

test('Concat: each part by itself', async () => {
  const { trace, rows, reads } = await traced((n) => {
    const a = n.op('Relu', [norm(n, 'x', 5, 3)]);
    const b = n.op('Relu', [norm(n, 'x', 4, 1)]);
    return n.conv(n.op('Concat', [a, b], { axis: 1 }), 9, 2);
  });
  const { s } = mixing(trace, reads, [0, 3, 4, 6, 8], 9);
  const left = closedForm(rows('w0'), [0, 3, 4]).map((row) => [...row, 0, 0]);
  const right = closedForm(rows('w6'), [1, 3]).map((row) => [0, 0, 0, ...row]);
  expect(distance(s, [...left, ...right].flat())).toBeLessThan(1e-9);
  // Nothing is left of the second part: it has nothing to be made of.
  const none = mixing(trace, reads, [1, 2], 9);
  expect(Array.from(none.s.subarray(10))).toEqual(Array(8).fill(0));
});

test.each([
  ['Add', 1],
  ['Sub', -1],
])('%s: filters of both terms, one behind the other', async (op, sign) => {
  const { trace, rows, reads } = await traced((n) =>
    n.conv(n.op('Relu', [n.op(op, [norm(n, 'x', 6, 3), norm(n, 'x', 6, 1)])]), 6, 2),
  );
  const [a, b] = [rows('w0'), rows('w6')];
  const both: Rows = {
    filters: a.filters.map((row, i) => [...row, ...b.filters[i].map((w) => sign * w)]),
    shift: a.shift.map((x, i) => x + sign * b.shift[i]),
  };
  const kept = [1, 2, 5];
  expect(distance(mixing(trace, reads, kept, 6).s, closedForm(both, kept).flat())).toBeLessThan(
    1e-9,
  );
});

test('depthwise: the filters in front of it under its own', async () => {
  const { trace, rows } = await traced((n) => {
    const wide = n.op('Relu', [norm(n, 'x', 6, 1)]);
    const deep = n.batchNorm(n.conv(wide, 6, 6, { group: 6 }), 6);
    return n.conv(n.op('Relu', [deep]), 6, 2, { kernel: 1 });
  });
  const [before, own] = [rows('w0'), rows('w6')];
  const [{ filters, affine }] = trace.behind('relu5')!;
  const scaled = Array.from(filters, (w, k) => w * affine.scale[Math.floor(k / 27)]);
  const composed = own.filters.flatMap((kernel, i) =>
    kernel.flatMap((tap) => before.filters[i].map((w) => tap * w)),
  );
  expect(distance(scaled, composed)).toBeLessThan(1e-12);
});

test('what cuts or permutes channels ends the trace, and the rest is dropped', async () => {
  const { trace } = await traced((n) => {
    const [a, b] = n.ops('Split', [norm(n, 'x', 6, 3), n.ints(3, 3)], ['a', 'b'], { axis: 1 });
    return n.conv(n.op('Concat', [b, a], { axis: 1 }), 6, 2);
  });
  expect(trace.behind('a')).toBeUndefined();
  expect(trace.behind('x')).toBeUndefined();
  const options = { ...alphas, blocks: 1 };
  expect(weightMixing(undefined, Uint32Array.of(0), 2, 'udfc', options)).toBeUndefined();
});
