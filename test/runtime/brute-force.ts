import type { FeatureLayout, LinearLayer } from '../../src/graph/linear-layers.js';
import { attribute, intsAttribute } from '../../src/graph/nodes.js';
import type { Probe, Reduction } from '../../src/runtime/instrument.js';
import type { Output } from '../support/run.js';

/** The probe of a layer, as calibration makes it. */
export function probeOf({ scope, input, layout, weight }: LinearLayer, gram = true): Probe {
  if (!layout || !weight) throw new Error('no weight, no probe');
  const { cols, groups } = weight;
  return { scope, value: input, layout, features: cols * groups, groups, gram };
}

/** An activation as token rows [n, C], by the definition. */
export function tokenRows({ dims, data }: Output, layout: FeatureLayout): number[][] {
  const x = Array.from(data, Number);
  if (layout.kind === 'patches') return patches(dims, x, layout);
  const last = dims[dims.length - 1];
  if (layout.axis === -1)
    return Array.from({ length: x.length / last }, (_, r) => x.slice(r * last, (r + 1) * last));
  const features = dims[dims.length - 2];
  return Array.from({ length: x.length / features }, (_, r) => {
    const matrix = Math.floor(r / last) * features * last;
    return Array.from({ length: features }, (_, f) => x[matrix + f * last + (r % last)]);
  });
}

/** What a convolution sees at each output position: channel by channel, tap by tap. */
function patches(
  dims: readonly number[],
  x: number[],
  { node, kernel }: Extract<FeatureLayout, { kind: 'patches' }>,
): number[][] {
  const [batch, channels, ...size] = dims;
  const rank = size.length;
  const strides = intsAttribute(node, 'strides') ?? size.map(() => 1);
  const dilations = intsAttribute(node, 'dilations') ?? size.map(() => 1);
  const auto = Buffer.from(attribute(node, 'auto_pad')?.s ?? []).toString();
  const extent = kernel.map((k, d) => (k - 1) * dilations[d] + 1);
  let begin = size.map(() => 0);
  let end = size.map(() => 0);
  if (auto.startsWith('SAME')) {
    const total = size.map((s, d) =>
      Math.max(0, (Math.ceil(s / strides[d]) - 1) * strides[d] + extent[d] - s),
    );
    begin = total.map((t) => (auto === 'SAME_UPPER' ? Math.floor(t / 2) : Math.ceil(t / 2)));
    end = total.map((t, d) => t - begin[d]);
  } else if (auto !== 'VALID') {
    const pads = intsAttribute(node, 'pads') ?? [];
    begin = size.map((_, d) => pads[d] ?? 0);
    end = size.map((_, d) => pads[rank + d] ?? 0);
  }
  const out = size.map((s, d) => Math.floor((s + begin[d] + end[d] - extent[d]) / strides[d]) + 1);
  const rows: number[][] = [];
  for (let n = 0; n < batch; n++)
    for (const position of grid(out)) {
      const row: number[] = [];
      for (let c = 0; c < channels; c++)
        for (const tap of grid(kernel)) {
          const at = position.map((p, d) => p * strides[d] - begin[d] + tap[d] * dilations[d]);
          const inside = at.every((a, d) => a >= 0 && a < size[d]);
          const index = at.reduce((i, a, d) => i * size[d] + a, n * channels + c);
          row.push(inside ? x[index] : 0);
        }
      rows.push(row);
    }
  return rows;
}

/** All positions of a box, the last axis fastest. */
const grid = (sizes: readonly number[]): number[][] =>
  sizes.reduce<number[][]>(
    (all, size) => all.flatMap((at) => Array.from({ length: size }, (_, i) => [...at, i])),
    [[]],
  );

/** What the instrumented model should say of token rows [n, C]. */
export function reduceRows(rows: number[][], groups: number, picks: readonly number[]) {
  const width = rows[0].length;
  const sum = Array.from({ length: width }, (_, c) => rows.reduce((n, r) => n + r[c], 0));
  const mean = sum.map((s) => s / rows.length);
  const per = width / groups;
  return {
    tokens: rows.length,
    sum,
    centredSquares: mean.map((m, c) => rows.reduce((n, r) => n + (r[c] - m) ** 2, 0)),
    gram: Array.from({ length: groups * per * per }, (_, i) => {
      const [g, a, b] = [Math.floor(i / per / per), Math.floor(i / per) % per, i % per];
      return rows.reduce((n, r) => n + r[g * per + a] * r[g * per + b], 0);
    }),
    rows: picks.flatMap((p) => rows[Math.floor(p * rows.length)]),
  };
}

/** Largest distance over the largest value. */
function apart(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let scale = 1e-30;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    scale = Math.max(scale, Math.abs(b[i]));
    largest = Math.max(largest, Math.abs(a[i] - b[i]));
  }
  return largest / scale;
}

/** Sums are float32 in the runtime, float64 here. */
export function expectReduction(
  reduction: Reduction | undefined,
  expected: ReturnType<typeof reduceRows>,
  tolerance = 1e-5,
) {
  expect(reduction?.tokens).toBe(expected.tokens);
  for (const key of ['sum', 'centredSquares', 'gram', 'rows'] as const) {
    const found = reduction?.[key];
    if (found) expect([key, apart(found, expected[key]) < tolerance]).toEqual([key, true]);
  }
}
