import { modelInputs } from '../../../src/graph/interface.js';
import { laf } from '../../../src/methods/unlearn/laf/method.js';
import { findSplits } from '../../../src/methods/unlearn/laf/split.js';
import { Model, type ModelProto, readModel } from '../../../src/onnx/index.js';
import { inRepository, newFolder, scratchFolder } from '../../support/cli.js';
import { node, model as proto, value, weight } from '../../support/protos.js';
import { variants } from '../../support/variants.js';
import { lafPath } from './golden-laf.js';

const folder = scratchFolder();
const fixture = (path: string) => readModel(inRepository(`fixtures/${path}`));
const plan = (model: Model, split?: string, more: object = {}) =>
  laf.plan(model, laf.parameters.parse({ ...(split && { split }), ...more }), {
    selects: () => true,
  });

/** x [n, 16] -> MatMul -> Relu -> MatMul -> y, with any part replaced. */
const small = (parts: Parameters<typeof proto>[0] = {}): Model =>
  new Model(
    proto({
      input: [value('x', ['n', 16])],
      initializer: [weight('a', [16, 12]), weight('b', [12, 10])],
      node: [
        node('MatMul', ['x', 'a'], ['hidden'], {}, { name: 'first' }),
        node('Relu', ['hidden'], ['active']),
        node('MatMul', ['active', 'b'], ['y']),
      ],
      output: [value('y', ['n', 10])],
      ...parts,
    }) as ModelProto,
  );

test('what the last linear layer reads is the default; all places are told', async () => {
  const { chosen, candidates } = await findSplits(small());
  expect(candidates.map(({ value: v, width, op }) => [v, width, op])).toEqual([
    ['hidden', 12, 'MatMul'],
    ['active', 12, 'Relu'],
  ]);
  expect(chosen.value).toBe('active');
  const { layers, notes } = await plan(small());
  expect(layers.map(({ name, status, reason }) => [name, status, reason])).toEqual([
    ['a', 'changed', undefined],
    ['b', 'skipped', 'in the classifier'],
  ]);
  expect(notes[0]).toMatch(
    /read at "active" \(Relu, 12 numbers; 192 parameters before, 120 behind/,
  );
  expect(notes[1]).toMatch(/--split may name "hidden" \(MatMul/);
});

test('a value or a node may be named', async () => {
  expect((await findSplits(small(), 'hidden')).chosen.value).toBe('hidden');
  expect((await findSplits(small(), 'first')).chosen.value).toBe('hidden');
  const repaired = await plan(small(), 'hidden', { supervisedRepair: true });
  expect((await repaired).layers.map(({ status }) => status)).toEqual(['changed', 'changed']);
});

test.each([
  ['nowhere', /no value or node of that name/],
  ['x', /a value that something flows past/],
  ['y', /a value that something flows past/],
])('no place is "%s"', async (split, got) => {
  await expect(findSplits(small(), split)).rejects.toMatchObject({
    exitCode: 2,
    detail: { got: expect.stringMatching(got), expected: 'hidden, active' },
  });
});

test.each<[string, Parameters<typeof proto>[0]]>([
  [
    'a shortcut over the only hidden layer',
    {
      initializer: [weight('a', [16, 10]), weight('b', [10, 10]), weight('c', [16, 10])],
      node: [
        node('MatMul', ['x', 'a'], ['hidden']),
        node('MatMul', ['hidden', 'b'], ['straight']),
        node('MatMul', ['x', 'c'], ['by']),
        node('Add', ['straight', 'by'], ['y']),
      ],
    },
  ],
  [
    'no parameters behind the representation',
    {
      initializer: [weight('a', [16, 10])],
      node: [node('MatMul', ['x', 'a'], ['hidden']), node('Softmax', ['hidden'], ['y'])],
    },
  ],
  [
    'a representation of too few numbers',
    {
      initializer: [weight('a', [16, 4]), weight('b', [4, 10])],
      node: [node('MatMul', ['x', 'a'], ['hidden']), node('MatMul', ['hidden', 'b'], ['y'])],
    },
  ],
])('refused: %s', async (_, parts) => {
  await expect(findSplits(small(parts))).rejects.toMatchObject({
    exitCode: 5,
    message: expect.stringMatching(/no place at which it may be cut/),
  });
});

test('linear layers of other outputs, and biases, do not count', async () => {
  const { chosen, candidates } = await findSplits(
    small({
      initializer: [
        weight('a', [16, 12]),
        weight('b', [12, 10]),
        weight('bias', [10]),
        weight('c', [12, 9]),
      ],
      node: [
        node('MatMul', ['x', 'a'], ['hidden']),
        node('MatMul', ['hidden', 'b'], ['product']),
        node('Add', ['product', 'bias'], ['y']),
        node('MatMul', ['hidden', 'c'], ['other']),
      ],
      output: [value('y', ['n', 10]), value('other', ['n', 9])],
    }),
  );
  expect(candidates.map(({ value: v }) => v)).toEqual(['hidden', 'product']);
  expect(chosen.value).toBe('hidden');
});

test('networks: the pooled features of a ResNet, the last hidden layer of others', async () => {
  const resnet = await findSplits(await fixture('resnet8/resnet8.onnx'));
  expect(resnet.chosen).toMatchObject({ value: '/Flatten_output_0', width: 64 });
  expect(resnet.chosen.classifier.size).toBe(2);
  const mobile = await findSplits(await fixture('mobile7/mobile7.onnx'));
  expect(mobile.chosen.classifier.size).toBe(2);
  const vgg = await findSplits(await fixture('vgg7/vgg7.onnx'));
  // Before and behind the Relu of its last hidden layer.
  expect(vgg.candidates.length).toBeGreaterThanOrEqual(3);
  expect(vgg.chosen.op).toBe('Relu');
  const golden = await findSplits(await readModel(lafPath('laf.onnx')));
  expect(golden.candidates.map(({ value: v }) => v)).toContain('/fc1/Gemm_output_0');
  expect(golden.chosen.value).toBe('/fc2/fc2.0/Gemm_output_0');
});

test('a language model has none', async () => {
  await expect(findSplits(await fixture('gpt-moby/gpt-moby.onnx'))).rejects.toMatchObject({
    exitCode: 5,
  });
});

test.each(
  variants.filter(({ name }) => !/int8|branch/.test(name)).map((v) => [v.name, v] as const),
)('stored as: %s', async (_, variant) => {
  const model = await readModel(variant.write(newFolder(folder, variant.name)));
  const { chosen } = await findSplits(model);
  expect(chosen.width).toBe(64);
  expect(chosen.extractor.size).toBe(27);
  expect(chosen.classifier.size).toBe(2);
  expect(modelInputs(model.proto)).toHaveLength(1);
});
