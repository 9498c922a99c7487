import fc from 'fast-check';
import { gradientGraph } from '../../src/autodiff/gradient-graph.js';
import { perSampleWeightGradient } from '../../src/autodiff/rules/conv-weight.js';
import type { ModelProto, NodeProto } from '../../src/onnx/index.js';
import { encodeModel } from '../../src/onnx/index.js';
import { type Feeds, withSession } from '../../src/runtime/session.js';
import { node, value } from '../support/protos.js';
import { checkGradient, type GradientCase, random } from './check-gradient.js';

/** One spatial axis of an image under a window that fits at least once. */
const axis = fc
  .record({
    kernel: fc.integer({ min: 1, max: 3 }),
    stride: fc.integer({ min: 1, max: 3 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    begin: fc.integer({ min: 0, max: 2 }),
    end: fc.integer({ min: 0, max: 2 }),
    more: fc.integer({ min: 0, max: 3 }),
  })
  .map((a) => {
    // ONNX Runtime pools no window that lies in the padding alone.
    const [begin, end] = [Math.min(a.begin, a.kernel - 1), Math.min(a.end, a.kernel - 1)];
    return { ...a, begin, end, size: a.dilation * (a.kernel - 1) + 1 + a.more };
  });

const axes = fc.array(axis, { minLength: 1, maxLength: 2 });

type Axes = typeof axes extends fc.Arbitrary<infer T> ? T : never;

const windowAttributes = (window: Axes, dilations = true) => ({
  strides: window.map((a) => a.stride),
  pads: [...window.map((a) => a.begin), ...window.map((a) => a.end)],
  ...(dilations && { dilations: window.map((a) => a.dilation) }),
});

const property = (name: string, cases: fc.Arbitrary<Omit<GradientCase, 'name'>>) =>
  test(name, async () => {
    await fc.assert(
      fc.asyncProperty(cases, (c) => checkGradient({ ...c, name })),
      { numRuns: 25 },
    );
  });

const groups = fc.record({
  window: axes,
  batch: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 2 }),
  channels: fc.integer({ min: 1, max: 2 }),
  filters: fc.integer({ min: 1, max: 2 }),
});

property(
  'Conv of any window',
  groups.map(({ window, batch, group, channels, filters }) => ({
    nodes: [node('Conv', ['x', 'w'], ['y'], { ...windowAttributes(window), group })],
    inputs: {
      x: { dims: [batch, group * channels, ...window.map((a) => a.size)] },
      w: { dims: [group * filters, channels, ...window.map((a) => a.kernel)] },
    },
    check: 'linear',
  })),
);

property(
  'ConvTranspose of any window',
  groups.map(({ window, batch, group, channels, filters }) => ({
    nodes: [node('ConvTranspose', ['x', 'w'], ['y'], { ...windowAttributes(window), group })],
    inputs: {
      x: { dims: [batch, group * channels, ...window.map((a) => a.more + 1 + a.begin + a.end)] },
      w: { dims: [group * channels, filters, ...window.map((a) => a.kernel)] },
    },
    check: 'linear',
  })),
);

property(
  'AveragePool of any window',
  fc.record({ window: axes, counted: fc.boolean(), ceil: fc.boolean() }).map((a) => ({
    nodes: [
      node('AveragePool', ['x'], ['y'], {
        ...windowAttributes(a.window),
        kernel_shape: a.window.map((w) => w.kernel),
        count_include_pad: a.counted ? 1 : 0,
        ceil_mode: a.ceil ? 1 : 0,
      }),
    ],
    inputs: { x: { dims: [1, 2, ...a.window.map((w) => w.size)] } },
    check: 'linear',
    opset: 22,
  })),
);

property(
  'MaxPool of any window',
  fc
    .record({ window: axes, ceil: fc.boolean(), order: fc.integer({ min: 0, max: 1 }) })
    .map((a) => ({
      nodes: [
        node('MaxPool', ['x'], ['y'], {
          ...windowAttributes(a.window),
          kernel_shape: a.window.map((w) => w.kernel),
          ceil_mode: a.ceil ? 1 : 0,
          storage_order: a.order,
        }),
      ],
      inputs: { x: { dims: [1, 2, ...a.window.map((w) => w.size)] } },
      opset: 22,
    })),
);

/** A batch axis of both operands, of 1 or of a common size. */
const batchAxis = fc.constantFrom([1, 1], [1, 2], [2, 1], [2, 2]);

property(
  'MatMul of any batch',
  fc
    .record({
      batch: fc.array(batchAxis, { maxLength: 2 }),
      lead: fc.integer({ min: 0, max: 2 }),
      sizes: fc.tuple(...[0, 1, 2].map(() => fc.integer({ min: 1, max: 3 }))),
    })
    .map(({ batch, lead, sizes: [m, k, n] }) => ({
      nodes: [node('MatMul', ['a', 'b'], ['y'])],
      inputs: {
        a: { dims: [...batch.map(([a]) => a), m, k] },
        b: { dims: [...batch.slice(lead).map(([, b]) => b), k, n] },
      },
    })),
);

test('the weight gradients of samples are those of batches of one', async () => {
  const conv = node('Conv', ['x', 'w'], ['y'], { group: 2, strides: [2, 1], pads: [1, 0, 0, 1] });
  const dims = { x: [3, 4, 5, 4], w: [2, 2, 3, 2], y: [3, 2, 2, 4] };
  const next = random(1);
  const data = (n: number) => Float32Array.from({ length: n }, () => next() - 0.5);
  const [x, w, g] = [data(240), data(24), data(48)];
  const samples = await gradients(conv, dims, { x, w, g }, true);
  expect(samples.dims).toEqual([3, ...dims.w]);
  for (const i of [0, 1, 2]) {
    const one = await gradients(
      conv,
      { x: [1, ...dims.x.slice(1)], w: dims.w, y: [1, ...dims.y.slice(1)] },
      { x: x.subarray(80 * i, 80 * (i + 1)), w, g: g.subarray(16 * i, 16 * (i + 1)) },
      false,
    );
    const got = (samples.data as Float32Array).subarray(24 * i, 24 * (i + 1));
    for (const [k, v] of (one.data as Float32Array).entries()) expect(got[k]).toBeCloseTo(v, 5);
  }
});

/** dW of a Conv node from the gradient `g` of its output, of all samples or of each. */
async function gradients(
  conv: NodeProto,
  dims: Record<'x' | 'w' | 'y', number[]>,
  data: Record<'x' | 'w' | 'g', Float32Array>,
  each: boolean,
): Promise<Feeds[string]> {
  const model: ModelProto = {
    irVersion: 8,
    functions: [],
    opsetImport: [{ version: 17 }],
    graph: {
      name: 'conv',
      node: [conv],
      initializer: [],
      input: [value('x', dims.x), value('w', dims.w)],
      output: [value('y', dims.y)],
      valueInfo: [],
    },
  };
  let output = '';
  const made = await gradientGraph(model, ['w'], (t) => {
    if (each) output = perSampleWeightGradient(t, conv, 'g');
    return {
      seeds: new Map([['y', 'g']]),
      inputs: [{ name: 'g', type: { dtype: 'float32', dims: dims.y } }],
      outputs: each ? [output] : [],
    };
  });
  output ||= made.gradients.get('w') ?? '';
  return withSession(encodeModel(made.model), { threads: 1 }, async (session) => {
    const feeds = {
      x: { dtype: 'float32' as const, dims: dims.x, data: data.x },
      w: { dtype: 'float32' as const, dims: dims.w, data: data.w },
      g: { dtype: 'float32' as const, dims: dims.y, data: data.g },
    };
    return (await session.run(feeds, [output]))[output];
  });
}
