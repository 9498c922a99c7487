import { string } from '../../../src/graph/build.js';
import { floats, node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';
import { erf, slopes, unary } from '../reference.js';

const wide = { dims: [3, 8], range: [-5, 5] as [number, number] };
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const softplus = (x: number) => Math.log1p(Math.exp(x));
const elu = (x: number, alpha: number) => (x > 0 ? x : alpha * Math.expm1(x));
const hardSigmoid = (x: number, alpha: number, beta: number) =>
  Math.max(0, Math.min(1, alpha * x + beta));
const selu = (x: number, alpha: number, gamma: number) => gamma * elu(x, alpha);
const gelu = (x: number) => (x / 2) * (1 + erf(x * Math.SQRT1_2));
const tanhGelu = (x: number) =>
  (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

type Floats = Record<string, number>;

const smooth: [string, (x: number) => number, Floats?, number?][] = [
  ['LeakyRelu', (x) => (x > 0 ? x : 0.01 * x)],
  ['LeakyRelu', (x) => (x > 0 ? x : 0.3 * x), { alpha: 0.3 }],
  ['Elu', (x) => elu(x, 1)],
  ['Elu', (x) => elu(x, 0.4), { alpha: 0.4 }, 22],
  ['Selu', (x) => selu(x, 1.6732632, 1.050701)],
  ['Selu', (x) => selu(x, 2, 0.5), { alpha: 2, gamma: 0.5 }, 22],
  ['Celu', (x) => elu(x, 1)],
  ['Celu', (x) => Math.max(0, x) + Math.min(0, 1.7 * Math.expm1(x / 1.7)), { alpha: 1.7 }],
  ['HardSigmoid', (x) => hardSigmoid(x, 0.2, 0.5)],
  ['HardSigmoid', (x) => hardSigmoid(x, 1 / 6, 0.4), { alpha: 1 / 6, beta: 0.4 }, 22],
  ['HardSwish', (x) => x * hardSigmoid(x, 1 / 6, 0.5)],
  ['Softplus', softplus],
  ['Softsign', (x) => x / (1 + Math.abs(x))],
  ['Gelu', gelu, {}, 20],
  ['Mish', (x) => x * Math.tanh(softplus(x)), {}, 18],
  ['ThresholdedRelu', (x) => (x > 1 ? x : 0)],
  ['ThresholdedRelu', (x) => (x > 0.5 ? x : 0), { alpha: 0.5 }, 22],
  ['Swish', (x) => x * sigmoid(x), {}, 24],
  ['Swish', (x) => x * sigmoid(1.5 * x), { alpha: 1.5 }, 24],
];

const inDouble: GradientCase[] = [
  unary('Relu', wide),
  unary('Relu', { dims: [] }),
  unary('Relu', { dims: [0, 2] }),
  unary('Sigmoid', wide),
  unary('Tanh', wide, { opset: 25 }),
];

const tanh: GradientCase = {
  name: 'Gelu, approximate',
  nodes: [node('Gelu', ['x'], ['y'], {}, { attribute: [string('approximate', 'tanh')] })],
  inputs: { x: wide },
  opset: 20,
  check: slopes(tanhGelu),
};

/** What is taken where a function has no slope, as torch does. */
const kinks: GradientCase[] = [
  unary(
    'Relu',
    { dims: [3], values: [-1, 0, 1] },
    { name: 'Relu at 0', check: (_, { y }) => ({ x: Float64Array.of(0, 0, y[2]) }) },
  ),
  unary(
    'LeakyRelu',
    { dims: [3], values: [-1, 0, 1] },
    {
      name: 'LeakyRelu at 0',
      floats: { alpha: 0.5 },
      check: (_, { y }) => ({ x: Float64Array.of(y[0] / 2, y[1] / 2, y[2]) }),
    },
  ),
  {
    name: 'Clip at its bounds',
    nodes: [node('Clip', ['x', 'low', 'high'], ['y'])],
    inputs: { x: { dims: [5], values: [-2, -1, 0, 1, 2] } },
    initializers: [floats('low', [], Float32Array.of(-1)), floats('high', [], Float32Array.of(1))],
    check: (_, { y }) => ({ x: Float64Array.of(0, y[1], y[2], y[3], 0) }),
  },
];

const clips: GradientCase[] = [['low', 'high'], ['low', ''], ['', 'high'], []].map((bounds) => ({
  name: `Clip by ${bounds.length ? bounds : 'nothing'}`,
  nodes: [node('Clip', ['x', ...bounds], ['y'])],
  inputs: {
    x: wide,
    low: { dims: [], values: [-2], constant: true },
    high: { dims: [], values: [1], constant: true },
  },
}));

/** Where the slope lies that belongs to element i of x: a slope stretches to x. */
function slopeAt(i: number, x: number[], slope: number[]): number {
  let at = 0;
  let size = 1;
  let rest = i;
  for (let axis = x.length - 1; axis >= x.length - slope.length; axis--) {
    const n = slope[axis - x.length + slope.length];
    at += n === 1 ? 0 : size * (rest % x[axis]);
    size *= n;
    rest = Math.floor(rest / x[axis]);
  }
  return at;
}

const prelus: GradientCase[] = [[3, 1, 1], [1], [], [2, 3, 2, 2], [2]].flatMap((dims) =>
  [17, 25].map((opset): GradientCase => {
    const image = [2, 3, 2, 2];
    return {
      name: `PRelu with slopes [${dims}], opset ${opset}`,
      nodes: [node('PRelu', ['x', 'slope'], ['y'])],
      inputs: { x: { dims: image }, slope: { dims } },
      opset,
      check: ({ x, slope }, { y }) => {
        const result = { x: new Float64Array(x.length), slope: new Float64Array(slope.length) };
        for (const [i, v] of x.entries()) {
          const k = slopeAt(i, image, dims);
          result.x[i] = y[i] * (v > 0 ? 1 : slope[k]);
          result.slope[k] += y[i] * Math.min(v, 0);
        }
        return result;
      },
    };
  }),
);

export const cases: GradientCase[] = [
  ...inDouble,
  ...smooth.map(([op, f, attributes, opset]) =>
    unary(op, wide, { floats: attributes, opset, check: slopes(f) }),
  ),
  tanh,
  ...kinks,
  ...clips,
  ...prelus,
];
