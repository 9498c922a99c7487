import { float } from '../../../src/graph/build.js';
import { node } from '../../support/protos.js';
import type { GradientCase, InputCase, Reference } from '../check-gradient.js';

const positive: [number, number] = [0.5, 2];

const withEpsilon = (
  op: string,
  inputs: string[],
  attributes: Record<string, number> = {},
  epsilon = 0.1,
) => {
  const made = node(op, inputs, ['y'], attributes);
  made.attribute.push(float('epsilon', epsilon));
  return made;
};

/** y = x standardised over each map of 4, times s, plus b, of 2 samples with 2 channels. */
const instance: Reference = ({ x, s }, { y }) => {
  const [dx, ds, db] = [new Float64Array(16), new Float64Array(2), new Float64Array(2)];
  for (let map = 0; map < 4; map++) {
    const cells = x.subarray(4 * map, 4 * map + 4);
    const seeds = y.subarray(4 * map, 4 * map + 4);
    const mean = cells.reduce((a, b) => a + b) / 4;
    const variance = cells.reduce((a, b) => a + (b - mean) ** 2, 0) / 4;
    const r = 1 / Math.sqrt(variance + 0.1);
    const z = cells.map((v) => (v - mean) * r);
    const alongZ = seeds.reduce((a, v, i) => a + v * z[i], 0);
    const sum = seeds.reduce((a, b) => a + b);
    for (let i = 0; i < 4; i++)
      dx[4 * map + i] = s[map % 2] * r * (seeds[i] - sum / 4 - (z[i] * alongZ) / 4);
    ds[map % 2] += alongZ;
    db[map % 2] += sum;
  }
  return { x: dx, s: ds, b: db };
};

export const cases: GradientCase[] = [
  ...[
    [2, 3, 4, 2],
    [4, 3],
    [2, 3, 4],
    [1, 2, 2, 2, 2],
  ].map((dims): GradientCase => {
    const channel: InputCase = { dims: [dims[1]] };
    return {
      name: `BatchNormalization [${dims}]`,
      nodes: [withEpsilon('BatchNormalization', ['x', 's', 'b', 'm', 'v'])],
      inputs: {
        x: { dims },
        s: channel,
        b: channel,
        m: channel,
        v: { ...channel, range: positive },
      },
    };
  }),
  ...[
    { dims: [2, 3, 4], axis: -1, shape: [4], bias: [4] },
    { dims: [2, 3, 4], axis: 1, shape: [3, 4], bias: [3, 4] },
    { dims: [2, 3, 4], axis: 0, shape: [2, 3, 4], bias: undefined },
    { dims: [3, 4], axis: 1, shape: [4], bias: undefined },
    { dims: [5], axis: 0, shape: [5], bias: [5] },
  ].flatMap(({ dims, axis, shape, bias }) =>
    [17, 21].flatMap((opset): GradientCase[] => {
      const inputs: Record<string, InputCase> = {
        x: { dims },
        s: { dims: shape },
        ...(bias && { b: { dims: bias } }),
      };
      const layer = {
        nodes: [withEpsilon('LayerNormalization', Object.keys(inputs), { axis })],
        inputs,
        opset,
      };
      return [
        { ...layer, name: `LayerNormalization [${dims}], axis ${axis}, opset ${opset}` },
        {
          ...layer,
          name: `LayerNormalization [${dims}], axis ${axis}, opset ${opset}, of its own statistics`,
          check: standardised,
        },
      ];
    }),
  ),
  {
    name: 'InstanceNormalization',
    nodes: [withEpsilon('InstanceNormalization', ['x', 's', 'b'])],
    inputs: { x: { dims: [2, 2, 2, 2] }, s: { dims: [2] }, b: { dims: [2] } },
    check: instance,
  },
  {
    name: 'InstanceNormalization, 1-D',
    nodes: [withEpsilon('InstanceNormalization', ['x', 's', 'b'])],
    inputs: { x: { dims: [2, 2, 4] }, s: { dims: [2] }, b: { dims: [2] } },
    check: instance,
  },
  ...[-1, 1].map(
    (axis): GradientCase => ({
      name: `RMSNormalization, axis ${axis}`,
      nodes: [withEpsilon('RMSNormalization', ['x', 's'], { axis })],
      inputs: { x: { dims: [2, 3, 4] }, s: { dims: axis === 1 ? [3, 4] : [4] } },
      opset: 23,
    }),
  ),
  ...[1, 2].flatMap((p) =>
    [-1, 0, 1].map(
      (axis): GradientCase => ({
        name: `LpNormalization p ${p}, axis ${axis}`,
        nodes: [node('LpNormalization', ['x'], ['y'], { p, axis })],
        inputs: { x: { dims: [2, 3, 4], range: axis === 0 ? positive : [-2, -0.5] } },
      }),
    ),
  ),
  ...[1, 2].map(
    (p): GradientCase => ({
      name: `LpNormalization p ${p} of zeros`,
      nodes: [node('LpNormalization', ['x'], ['y'], { p })],
      inputs: { x: { dims: [3], values: [0, 0, 0] } },
      check: () => ({ x: new Float64Array(3) }),
    }),
  ),
];

/** LayerNormalization in doubles: scale and bias have the dims of the trailing axes. */
function standardised(
  { x, s, b }: Record<string, Float64Array>,
  { y }: Record<string, Float64Array>,
): Record<string, Float64Array> {
  const n = s.length;
  const [dx, ds] = [new Float64Array(x.length), new Float64Array(n)];
  const db = new Float64Array(n);
  for (let row = 0; row < x.length; row += n) {
    const cells = x.subarray(row, row + n);
    const mean = cells.reduce((a, v) => a + v, 0) / n;
    const variance = cells.reduce((a, v) => a + (v - mean) ** 2, 0) / n;
    const r = 1 / Math.sqrt(variance + 0.1);
    const z = cells.map((v) => (v - mean) * r);
    const k = s.map((v, i) => v * y[row + i]);
    const [sum, alongZ] = [k.reduce((a, v) => a + v, 0), k.reduce((a, v, i) => a + v * z[i], 0)];
    for (let i = 0; i < n; i++) {
      dx[row + i] = r * (k[i] - sum / n - (z[i] * alongZ) / n);
      ds[i] += y[row + i] * z[i];
      db[i] += y[row + i];
    }
  }
  return { x: dx, s: ds, ...(b && { b: db }) };
}
