import fc from 'fast-check';
import type { ResectError } from '../../src/errors.js';
import { dependencies, removeDeadNodes, topologicalOrder } from '../../src/graph/topology.js';
import type { NodeProto } from '../../src/onnx/index.js';
import { graph, model, node, value, weight } from '../support/protos.js';
import { distance, runOnce } from '../support/run.js';
import { noiseTensor } from './helpers.js';

const names = (nodes: NodeProto[]) => nodes.map(({ name }) => name);

describe('dependencies', () => {
  test('are the inputs and what bodies capture, without what bodies define', () => {
    const body = graph({
      input: [value('iteration', [], 'int64'), value('condition', [], 'bool'), value('state', [4])],
      initializer: [weight('own', [4])],
      node: [
        node('Add', ['state', 'own'], ['h']),
        node('If', ['condition'], ['next'], {
          then_branch: graph({
            node: [node('Mul', ['h', 'far'], ['a'])],
            output: [value('a', [4])],
          }),
          else_branch: graph({
            node: [node('Identity', ['near'], ['b'])],
            output: [value('b', [4])],
          }),
        }),
      ],
      output: [value('condition', [], 'bool'), value('next', [4])],
    });
    const loop = node('Loop', ['count', '', 'start'], ['end'], { body });
    expect(dependencies(loop).sort()).toEqual(['count', 'far', 'near', 'start']);
  });

  test('a body may put out a value of the graph around it', () => {
    const choose = node('If', ['c'], ['y'], {
      then_branch: graph({ output: [value('x', [4])] }),
      else_branch: graph({ node: [node('Neg', ['z'], ['n'])], output: [value('n', [4])] }),
    });
    expect(dependencies(choose).sort()).toEqual(['c', 'x', 'z']);
  });
});

describe('topological order', () => {
  const chain = (n: number) =>
    Array.from({ length: n }, (_, i) =>
      node('Relu', [`v${i}`], [`v${i + 1}`], {}, { name: `n${i}` }),
    );

  test('leaves a sorted graph as it is', () => {
    const nodes = [
      node('Relu', ['x'], ['a'], {}, { name: '1' }),
      node('Relu', ['x'], ['b'], {}, { name: '2' }),
      node('Add', ['b', 'a'], ['y'], {}, { name: '3' }),
      node('Relu', ['x'], ['z'], {}, { name: '4' }),
    ];
    expect(names(topologicalOrder(graph({ node: nodes })))).toEqual(['1', '2', '3', '4']);
  });

  test('property: any order of the nodes gives one where every node follows what it reads', () => {
    const shuffled = fc.shuffledSubarray(chain(12), { minLength: 12, maxLength: 12 });
    fc.assert(
      fc.property(shuffled, (nodes) => {
        const order = topologicalOrder(graph({ node: nodes }));
        expect(names(order)).toEqual(names(chain(12)));
      }),
    );
  });

  test('takes account of what bodies capture', () => {
    const choose = node(
      'If',
      ['c'],
      ['y'],
      {
        then_branch: graph({ node: [node('Neg', ['h'], ['n'])], output: [value('n', [4])] }),
        else_branch: graph({ node: [node('Abs', ['h'], ['m'])], output: [value('m', [4])] }),
      },
      { name: 'choose' },
    );
    const order = topologicalOrder(
      graph({ node: [choose, node('Relu', ['x'], ['h'], {}, { name: 'before' })] }),
    );
    expect(names(order)).toEqual(['before', 'choose']);
  });

  test('does not overflow the stack on a long chain, whatever its order', () => {
    const nodes = chain(100_000).reverse();
    expect(topologicalOrder(graph({ node: nodes }))[0].name).toBe('n0');
  });

  test('refuses a cycle with exit 5', () => {
    const nodes = [
      node('Add', ['x', 'b'], ['a'], {}, { name: 'forth' }),
      node('Relu', ['a'], ['b'], {}, { name: 'back' }),
    ];
    expect(() => topologicalOrder(graph({ node: nodes }))).toThrow(
      expect.objectContaining({
        exitCode: 5,
        message: expect.stringMatching(/cycle/),
      }) as ResectError,
    );
    const self = [node('Add', ['x', 'a'], ['a'], {}, { name: 'self' })];
    expect(() => topologicalOrder(graph({ node: self }))).toThrow(/cycle/);
  });
});

describe('removeDeadNodes', () => {
  const full = () =>
    graph({
      input: [value('x', [1, 4]), value('unused', [1, 4])],
      initializer: [weight('w', [4, 4]), weight('dead', [4, 4]), weight('captured', [1, 4])],
      sparseInitializer: [
        { values: weight('dead.sparse', [2]), dims: [4] },
        { values: weight('live.sparse', [2]), dims: [4] },
      ],
      node: [
        node('MatMul', ['x', 'w'], ['h'], {}, { name: 'live' }),
        node('MatMul', ['x', 'dead'], ['d'], {}, { name: 'dead' }),
        node('Relu', ['d'], ['e'], {}, { name: 'dead too' }),
        node(
          'If',
          ['c'],
          ['y'],
          {
            then_branch: graph({
              node: [node('Add', ['h', 'captured'], ['a'])],
              output: [value('a', [1, 4])],
            }),
            else_branch: graph({
              node: [node('Add', ['h', 'live.sparse'], ['b'])],
              output: [value('b', [1, 4])],
            }),
          },
          { name: 'choose' },
        ),
        node(
          'Constant',
          [],
          ['c'],
          { value: { dims: [], dataType: 9, rawData: Uint8Array.of(1) } },
          { name: 'condition' },
        ),
      ],
      output: [value('y', [1, 4])],
    });

  test('keeps what outputs depend on, also through bodies, in file order', () => {
    const g = full();
    removeDeadNodes(g);
    expect(names(g.node)).toEqual(['live', 'choose', 'condition']);
    expect(g.initializer.map(({ name }) => name)).toEqual(['w', 'captured']);
    expect(g.sparseInitializer?.map(({ values }) => values?.name)).toEqual(['live.sparse']);
    expect(g.input.map(({ name }) => name)).toEqual(['x', 'unused']);
  });

  test('keeps a node with one live output of several', () => {
    const g = graph({
      input: [value('x', [4])],
      node: [node('Split', ['x'], ['a', 'b'], {}, { name: 'split' }), node('Relu', ['a'], ['c'])],
      output: [value('b', [2])],
    });
    removeDeadNodes(g);
    expect(names(g.node)).toEqual(['split']);
  });

  test('an initializer that is an input too goes with its input', async () => {
    const m = model(
      {
        input: [value('x', [1, 4]), value('w', [4, 4]), value('dead', [4, 4])],
        initializer: [weight('w', [4, 4]), weight('dead', [4, 4])],
        node: [node('MatMul', ['x', 'w'], ['y']), node('MatMul', ['x', 'dead'], ['d'])],
        output: [value('y', [1, 4])],
      },
      { irVersion: 3 },
    );
    const x = noiseTensor([1, 4]);
    const before = await runOnce(m, { x });
    removeDeadNodes(m.graph!);
    expect(m.graph!.input.map(({ name }) => name)).toEqual(['x', 'w']);
    expect(distance(before.y, (await runOnce(m, { x })).y)).toBe(0);
  });
});
