import { Graph } from '../../src/graph/graph.js';
import { findParameters } from '../../src/graph/parameters.js';
import {
  type ModelProto,
  type NodeProto,
  readModel,
  type TensorProto,
} from '../../src/onnx/index.js';
import { goldenCases, goldenGradients } from '../autodiff/golden.js';
import { golden, goldenPath } from '../methods/unlearn/golden-ssd.js';
import { gptMoby, mlpRegression, resnet8 } from '../support/fixtures.js';
import { floats, graph, ints, model, node, value, weight } from '../support/protos.js';

const parametersOf = (proto: ModelProto) => findParameters(new Graph(proto));

const inFile = async (path: string) => parametersOf((await readModel(path)).proto);

const count = (found: ReturnType<typeof parametersOf>) =>
  found.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);

describe('the parameters of trained models, counted as their README has them', () => {
  test.each([
    ['resnet8', resnet8.model, 77_754],
    ['gpt-moby', gptMoby.model, 558_144],
    ['mlp-regression', mlpRegression.model, 10_849],
  ])('%s', async (_, path, elements) => {
    const found = await inFile(path);
    expect(count(found)).toBe(elements);
    expect(found.filter(({ skip }) => skip)).toEqual([]);
  });

  test.each(goldenCases.map((c) => [c.name, c] as const))(
    '%s has those that torch has gradients for',
    async (_, c) => {
      const names = (await inFile(c.model)).map(({ name }) => name);
      expect(names.sort()).toEqual([...(await goldenGradients(c)).keys()].sort());
    },
  );

  test.each(['mlp', 'cnn'] as const)('%s has those of its golden file', async (name) => {
    const found = await inFile(goldenPath(`${name}/${name}.onnx`));
    const shapes = (list: { name: string; shape: number[] }[]) =>
      new Map(list.map((p) => [p.name, p.shape]));
    expect(shapes(found)).toEqual(shapes(golden.models[name].param_order));
  });

  test('statistics of normalisations, causal masks and constants of formulas are none', async () => {
    const [resnet, gpt] = [await inFile(resnet8.model), await inFile(gptMoby.model)];
    expect(resnet.filter(({ name }) => /running|mean|var/.test(name))).toEqual([]);
    expect(resnet.filter(({ op }) => op === 'BatchNormalization')).toHaveLength(18);
    expect(gpt.filter(({ name }) => /mask/.test(name))).toEqual([]);
    expect(gpt.map(({ name }) => name)).toContain('position_embedding');
  });
});

/** `y = x w`, then whatever `nodes` do, to `out`. */
const foundIn = (nodes: NodeProto[], initializer: TensorProto[]) =>
  parametersOf(
    model({
      node: [node('MatMul', ['x', 'w'], ['y']), ...nodes],
      initializer: [weight('w', [4, 4]), ...initializer],
      input: [value('x', ['batch', 4])],
      output: [value('out', ['batch', 4])],
    }),
  ).filter(({ name }) => name !== 'w');

const names = (found: ReturnType<typeof parametersOf>) => found.map(({ name }) => name);

describe('what is a parameter', () => {
  test.each([
    ['a bias', node('Add', ['y', 'p'], ['out']), weight('p', [4])],
    ['a scale on the left', node('Mul', ['p', 'y'], ['out']), weight('p', [1, 4])],
    ['positions', node('Add', ['y', 'p'], ['out']), weight('p', [2, 4])],
    ['a class token', node('Concat', ['p', 'y'], ['out'], { axis: 0 }), weight('p', [1, 4])],
    ['a slope', node('PRelu', ['y', 'p'], ['out']), weight('p', [4])],
    [
      'a scale of a normalisation',
      node('LayerNormalization', ['y', 'p'], ['out']),
      weight('p', [4]),
    ],
  ])('%s', (_, n, p) => expect(names(foundIn([n], [p]))).toEqual(['p']));

  test('positions of a slice of their table, but no angles of one', () => {
    const slice = node('Slice', ['p', 'from', 'to'], ['s']);
    const bounds = [weight('p', [8, 4]), ints('from', 0), ints('to', 2)];
    expect(names(foundIn([slice, node('Add', ['y', 's'], ['out'])], bounds))).toEqual(['p']);
    expect(names(foundIn([slice, node('Mul', ['y', 's'], ['out'])], bounds))).toEqual([]);
  });

  test('through changes of shape and type', () => {
    const nodes = [
      node('Transpose', ['p'], ['t']),
      node('Cast', ['t'], ['c'], { to: 1 }),
      node('Gemm', ['y', 'c'], ['out']),
    ];
    const [found] = foundIn(nodes, [weight('p', [4, 4])]);
    expect(found).toMatchObject({ name: 'p', op: 'Gemm', input: 1, shape: [4, 4] });
  });

  test('in a branch, under the name of its place', () => {
    const inner = (name: string) =>
      graph({
        node: [node('Add', ['y', 'p'], [name])],
        initializer: [weight('p', [4])],
        output: [value(name, ['batch', 4])],
      });
    const branches = { then_branch: inner('a'), else_branch: inner('b') };
    const found = foundIn([node('If', ['which'], ['out'], branches)], [ints('which', 1)]);
    expect(names(found)).toEqual(['out.then_branch/p', 'out.else_branch/p']);
  });

  test('one that several nodes read is one', () => {
    const nodes = [node('Add', ['y', 'p'], ['a']), node('Mul', ['a', 'p'], ['out'])];
    expect(names(foundIn(nodes, [weight('p', [4])]))).toEqual(['p']);
  });
});

describe('what is none', () => {
  const mask = Float32Array.from({ length: 16 }, (_, i) => (i % 4 > Math.floor(i / 4) ? -1e9 : 0));
  test.each([
    ['a scalar', node('Mul', ['y', 'p'], ['out']), weight('p', [1])],
    ['a mask that is added', node('Add', ['y', 'p'], ['out']), floats('p', [4, 4], mask)],
    ['a table that multiplies', node('Mul', ['y', 'p'], ['out']), weight('p', [4, 4])],
    ['an exponent', node('Pow', ['y', 'p'], ['out']), weight('p', [4])],
    ['integers', node('Gather', ['p', 'y'], ['out']), ints('p', 1, 2)],
  ])('%s', (_, n, p) => expect(foundIn([n], [p])).toEqual([]));

  test('the mean and deviation of pixels', () => {
    const found = parametersOf(
      model({
        node: [
          node('Sub', ['x', 'mean'], ['a']),
          node('Div', ['a', 'deviation'], ['b']),
          node('MatMul', ['b', 'w'], ['y']),
        ],
        initializer: [weight('mean', [4]), weight('w', [4, 4]), weight('deviation', [1])],
        input: [value('x', ['batch', 4])],
        output: [value('y', ['batch', 4])],
      }),
    );
    expect(names(found)).toEqual(['w']);
  });

  test('what cannot be changed says why', () => {
    const outputs = parametersOf(
      model({
        node: [node('MatMul', ['x', 'w'], ['y'])],
        initializer: [weight('w', [4, 4])],
        input: [value('x', ['batch', 4])],
        output: [value('y', ['batch', 4]), value('w', [4, 4])],
      }),
    );
    expect(outputs).toMatchObject([{ name: 'w', skip: 'an output of the model' }]);
    const quantized = parametersOf(
      model({
        node: [node('DequantizeLinear', ['q', 's'], ['w']), node('MatMul', ['x', 'w'], ['y'])],
        initializer: [
          { name: 'q', dims: [4, 4], dataType: 3, rawData: new Uint8Array(16) },
          floats('s', [], Float32Array.of(0.1)),
        ],
        input: [value('x', ['batch', 4])],
        output: [value('y', ['batch', 4])],
      }),
    );
    expect(quantized).toMatchObject([{ name: 'q', skip: 'int8 quantized storage' }]);
    const empty = foundIn(
      [node('Concat', ['p', 'y'], ['out'], { axis: 0 })],
      [weight('p', [0, 4])],
    );
    expect(empty).toMatchObject([{ name: 'p', skip: 'empty' }]);
  });
});
