/**
 * Activation ranges without data: a BatchNormalization tells mean β and deviation |γ| of each channel it
 * puts out, and the ops behind it what becomes of them.
 *
 *   κ   deviations on either side of the mean that a range spans
 */
import { floatAttribute, intAttribute, isStandard } from '../../../graph/nodes.js';
import { topologicalOrder } from '../../../graph/topology.js';
import { Workspace } from '../../../graph/workspace.js';
import { type Model, type NodeProto, readTensorFloat32 } from '../../../onnx/index.js';
import { reluMoments } from '../maths/gaussian-relu.js';
import type { ActivationRanges, Range } from './activation-ranges.js';

/** Of each channel of a tensor, or of all of them at once when the length is 1. */
interface Span {
  low: Float64Array;
  mean: Float64Array;
  high: Float64Array;
}

/** Mean and deviation of each channel of a layer's output. */
export interface OutputMoments {
  mean: Float64Array;
  deviation: Float64Array;
}

/**
 * The range of every value whose channels descend from BatchNormalizations: β ± κ|γ| at the least and
 * most of all channels, [0, β + κ|γ|] behind a ReLU, cut by Clip, and so on through sums, products,
 * Concat and pooling. A sum adds means, and in quadrature how far either term strays from its own.
 * Values behind a convolution or product without BatchNormalization have the range that `layers` tells.
 * @param layers by the value that has their bias in it
 * @param inputs ranges of the model's inputs; default: mean 0 and deviation 1, so [-κ, κ]
 */
export async function rangesFromBatchNorm(
  model: Model,
  {
    kappa = 4,
    inputs = new Map(),
    layers = new Map(),
  }: {
    kappa?: number;
    inputs?: ActivationRanges;
    layers?: ReadonlyMap<string, OutputMoments>;
  } = {},
): Promise<Map<string, Range>> {
  const workspace = new Workspace(model);
  const spans = new Map<string, Span>();
  for (const { name = '' } of workspace.graph.input) {
    const { min, max } = inputs.get(name) ?? { min: -kappa, max: kappa };
    spans.set(name, single(min, (min + max) / 2, max));
  }
  for (const node of topologicalOrder(workspace.graph)) {
    const rule = isStandard(node) ? rules[node.opType ?? ''] : undefined;
    const followed = await rule?.({
      node,
      kappa,
      input: (index) => {
        const value = workspace.input(node, index);
        return value && value.scope === workspace.view.root ? spans.get(value.name) : undefined;
      },
      constant: async (index) => {
        const view = workspace.constant(node, index);
        return view && Float64Array.from(await readTensorFloat32(model, view.tensor));
      },
      constantShape: (index) => workspace.constant(node, index)?.axes.map(({ size }) => size),
    });
    const known = layers.get(node.output[0] ?? '');
    const span = followed ?? (known && spread(known, kappa));
    if (span?.low.length && span.low.every(Number.isFinite) && span.high.every(Number.isFinite))
      spans.set(node.output[0], span);
  }
  const ranges = new Map<string, Range>();
  for (const [name, span] of spans) {
    const whole = overAll(span);
    ranges.set(name, { min: whole.low[0], max: whole.high[0] });
  }
  return ranges;
}

interface Step {
  node: NodeProto;
  kappa: number;
  input(index: number): Span | undefined;
  /** A stored tensor's values. */
  constant(index: number): Promise<Float64Array | undefined>;
  constantShape(index: number): number[] | undefined;
}

type Rule = (step: Step) => Span | undefined | Promise<Span | undefined>;

const single = (low: number, mean: number, high: number): Span => ({
  low: Float64Array.of(low),
  mean: Float64Array.of(mean),
  high: Float64Array.of(high),
});

const spread = ({ mean, deviation }: OutputMoments, kappa: number): Span => ({
  low: mean.map((m, i) => m - kappa * deviation[i]),
  mean,
  high: mean.map((m, i) => m + kappa * deviation[i]),
});

const same: Rule = ({ input }) => input(0);

/** Channels may come to lie elsewhere. */
const mixed: Rule = ({ input }) => {
  const x = input(0);
  return x && overAll(x);
};

const within =
  (low: number, high: number): Rule =>
  () =>
    single(low, (low + high) / 2, high);

const rules: Record<string, Rule> = {
  BatchNormalization: batchNormalization,
  Relu: (step) => clipped(step, 0, Infinity),
  Clip: async (step) => {
    const bound = async (name: string, index: number, open: number) =>
      step.node.input[index]
        ? (await step.constant(index))?.[0]
        : floatAttribute(step.node, name, open);
    const low = await bound('min', 1, -Infinity);
    const high = await bound('max', 2, Infinity);
    return low === undefined || high === undefined ? undefined : clipped(step, low, high);
  },
  LeakyRelu: (step) => {
    const slope = floatAttribute(step.node, 'alpha', 0.01);
    return monotone(step, (x) => (x < 0 ? slope * x : x));
  },
  // Their only minima below 0 are -3/8 and about -0.278.
  HardSwish: (step) => gated(step, (x) => x * Math.min(1, Math.max(0, x / 6 + 0.5)), -0.375),
  Swish: (step) => gated(step, (x) => x / (1 + Math.exp(-x)), -0.2785),
  Sigmoid: within(0, 1),
  HardSigmoid: within(0, 1),
  Softmax: within(0, 1),
  Tanh: within(-1, 1),
  Add: (step) => combined(step, (a, b) => a + b, sum),
  Sub: (step) =>
    combined(
      step,
      (a, b) => a - b,
      (a, b) => sum(a, negated(b)),
    ),
  Mul: (step) => combined(step, (a, b) => a * b, product),
  Div: async (step) => {
    const by = await step.constant(1);
    return (
      by &&
      combined({ ...step, constant: async () => by.map((x) => 1 / x) }, (a, b) => a * b, product)
    );
  },
  Concat: concat,
  MaxPool: same,
  AveragePool: same,
  GlobalAveragePool: same,
  GlobalMaxPool: same,
  ReduceMean: mixed,
  Flatten: mixed,
  Reshape: mixed,
  Squeeze: mixed,
  Unsqueeze: mixed,
  Transpose: mixed,
  Slice: mixed,
  Identity: same,
  Dropout: same,
  Pad: ({ input }) => {
    const x = input(0);
    return (
      x && { ...x, low: x.low.map((v) => Math.min(v, 0)), high: x.high.map((v) => Math.max(v, 0)) }
    );
  },
  Resize: ({ input, node }) => {
    // Cubic interpolation overshoots.
    const mode = node.attribute.find(({ name }) => name === 'mode')?.s;
    return mode && Buffer.from(mode).toString() === 'cubic' ? undefined : input(0);
  },
};

async function batchNormalization({ constant, kappa }: Step): Promise<Span | undefined> {
  const [gamma, beta] = [await constant(1), await constant(2)];
  if (!gamma || beta?.length !== gamma.length) return undefined;
  return {
    low: beta.map((b, i) => b - kappa * Math.abs(gamma[i])),
    mean: beta,
    high: beta.map((b, i) => b + kappa * Math.abs(gamma[i])),
  };
}

/** Cut at `least` and `most`; the mean as if the values were Gaussian. */
function clipped({ input, kappa }: Step, least: number, most: number): Span | undefined {
  const x = input(0);
  if (!x) return undefined;
  const cut = (v: number) => Math.min(most, Math.max(least, v));
  const mean = x.mean.map((m, i) => {
    const deviation = (x.high[i] - x.low[i]) / (2 * kappa);
    return cut(least === 0 ? reluMoments(m, deviation).mean : m);
  });
  return { low: x.low.map(cut), mean, high: x.high.map(cut) };
}

function monotone({ input }: Step, f: (x: number) => number): Span | undefined {
  const x = input(0);
  return x && { low: x.low.map(f), mean: x.mean.map(f), high: x.high.map(f) };
}

/** f(x) = x·gate(x): falls to `least` below 0, and grows from there. */
function gated(step: Step, f: (x: number) => number, least: number): Span | undefined {
  const x = monotone(step, f);
  const before = step.input(0);
  if (!x || !before) return undefined;
  const low = x.low.map((v, i) => (before.low[i] < 0 ? Math.min(least, x.high[i]) : v));
  return { ...x, low, high: x.high.map((v, i) => Math.max(v, x.low[i])) };
}

/** Two tensors, or a tensor and a constant. */
async function combined(
  step: Step,
  exact: (a: number, b: number) => number,
  spans: (a: Span, b: Span) => Span | undefined,
): Promise<Span | undefined> {
  const [a, b] = [step.input(0), step.input(1)];
  if (a && b) return spans(...alike(a, b));
  const span = a ?? b;
  const values = await step.constant(a ? 1 : 0);
  if (!span || !values || values.length === 0) return undefined;
  const shape = step.constantShape(a ? 1 : 0) ?? [];
  // [C, 1, 1] and [1, C, 1, 1] run along the channels of an image.
  const perChannel = span.low.length === values.length && /^(1,)?\d+,1,1$/.test(shape.join());
  const count = perChannel || values.length === 1 ? Math.max(span.low.length, values.length) : 1;
  const at = (v: Float64Array, i: number) => v[v.length === 1 ? 0 : i];
  const whole = count === 1 ? overAll(span) : span;
  const made = {
    low: new Float64Array(count),
    mean: new Float64Array(count),
    high: new Float64Array(count),
  };
  for (let i = 0; i < count; i++) {
    const some = count === 1 ? [...values] : [at(values, i)];
    const apply = (x: number) => some.map((c) => (a ? exact(x, c) : exact(c, x)));
    const ends = [...apply(at(whole.low, i)), ...apply(at(whole.high, i))];
    made.low[i] = ends.reduce((x, y) => Math.min(x, y));
    made.high[i] = ends.reduce((x, y) => Math.max(x, y));
    made.mean[i] = apply(at(whole.mean, i)).reduce((x, y) => x + y) / some.length;
  }
  return made;
}

/** Both with as many channels: where they differ, a length of 1 stands for each. */
function alike(a: Span, b: Span): [Span, Span] {
  const n = Math.max(a.low.length, b.low.length);
  const fits = (s: Span) => s.low.length === n || s.low.length === 1;
  if (!fits(a) || !fits(b)) return [overAll(a), overAll(b)];
  const spread = (s: Span): Span =>
    s.low.length === n
      ? s
      : {
          low: new Float64Array(n).fill(s.low[0]),
          mean: new Float64Array(n).fill(s.mean[0]),
          high: new Float64Array(n).fill(s.high[0]),
        };
  return [spread(a), spread(b)];
}

function sum(a: Span, b: Span): Span {
  const mean = a.mean.map((m, i) => m + b.mean[i]);
  return {
    mean,
    low: mean.map((m, i) => m - Math.hypot(a.mean[i] - a.low[i], b.mean[i] - b.low[i])),
    high: mean.map((m, i) => m + Math.hypot(a.high[i] - a.mean[i], b.high[i] - b.mean[i])),
  };
}

const negated = ({ low, mean, high }: Span): Span => ({
  low: high.map((x) => -x),
  mean: mean.map((x) => -x),
  high: low.map((x) => -x),
});

function product(a: Span, b: Span): Span {
  const ends = (i: number) => [
    a.low[i] * b.low[i],
    a.low[i] * b.high[i],
    a.high[i] * b.low[i],
    a.high[i] * b.high[i],
  ];
  return {
    low: a.low.map((_, i) => Math.min(...ends(i))),
    mean: a.mean.map((m, i) => m * b.mean[i]),
    high: a.low.map((_, i) => Math.max(...ends(i))),
  };
}

/** One behind the other along the channels; of several on another axis, all at once. */
function concat({ node, input }: Step): Span | undefined {
  const parts = node.input.map((_, i) => input(i));
  if (!parts.every((part) => part !== undefined)) return undefined;
  const joined = (pick: (part: Span) => Float64Array) =>
    Float64Array.from(parts.flatMap((part) => [...pick(part)]));
  const whole = {
    low: joined((p) => p.low),
    mean: joined((p) => p.mean),
    high: joined((p) => p.high),
  };
  const byChannel = intAttribute(node, 'axis', 1) === 1 && parts.every((p) => p.low.length > 1);
  return byChannel ? whole : overAll(whole);
}

/** All channels as one. */
function overAll({ low, mean, high }: Span): Span {
  return single(
    low.reduce((a, b) => Math.min(a, b)),
    mean.reduce((a, b) => a + b) / mean.length,
    high.reduce((a, b) => Math.max(a, b)),
  );
}
