import { ResectError } from '../../src/errors.js';
import { Graph, type Value } from '../../src/graph/graph.js';
import type { ModelProto } from '../../src/onnx/index.js';
import { floats, graph, model, node, value, weight } from '../support/protos.js';

const find = (g: Graph, name: string, path = ''): Value => {
  const scope = g.scopes.find((s) => s.path === path);
  const found = scope && g.lookup(scope, name);
  if (!found) throw new Error(`no ${name} in "${path}"`);
  return found;
};
const reads = ({ consumers }: Value) =>
  consumers.map(({ node: n, index, scope }) => `${scope.path}|${n.name}|${index}`);

/** y = if c then x + w else x, twice nested on the then side. `w` of the innermost body hides the outer one. */
const nested = (): ModelProto => {
  const innermost = graph({
    node: [node('Add', ['x', 'w'], ['sum'], {}, { name: 'inner add' })],
    initializer: [weight('w', [4])],
    output: [value('sum', [4])],
  });
  const inner = graph({
    node: [
      node('Mul', ['x', 'w'], ['product'], {}, { name: 'middle' }),
      node('If', ['c'], ['chosen'], {
        then_branch: innermost,
        else_branch: graph({
          node: [node('Identity', ['product'], ['same'], {}, { name: 'else' })],
          output: [value('same', [4])],
        }),
      }),
    ],
    output: [value('chosen', [4])],
  });
  return model({
    input: [value('c', [], 'bool'), value('x', [4])],
    initializer: [weight('w', [4])],
    node: [
      node(
        'If',
        ['c'],
        ['y'],
        {
          then_branch: inner,
          else_branch: graph({
            node: [node('Neg', ['x'], ['minus'], {}, { name: 'negate' })],
            output: [value('minus', [4])],
          }),
        },
        { name: 'choose' },
      ),
    ],
    output: [value('y', [4])],
  });
};

describe('scopes', () => {
  const g = new Graph(nested());

  test('are all found, with owner, parent and path', () => {
    expect(g.scopes.map(({ path }) => path)).toEqual([
      '',
      'y.then_branch',
      'y.then_branch/chosen.then_branch',
      'y.then_branch/chosen.else_branch',
      'y.else_branch',
    ]);
    const innermost = g.scopes[2];
    expect(innermost.owner?.output).toEqual(['chosen']);
    expect(innermost.parent?.parent).toBe(g.root);
  });

  test('a body sees the values of the graphs around it', () => {
    expect(find(g, 'x', 'y.then_branch/chosen.then_branch').scope).toBe(g.root);
    expect(find(g, 'product', 'y.then_branch/chosen.else_branch').scope.path).toBe('y.then_branch');
  });

  test('an inner definition hides an outer one of the same name, for its own body only', () => {
    const [outer, inner] = [find(g, 'w'), find(g, 'w', 'y.then_branch/chosen.then_branch')];
    expect(inner).not.toBe(outer);
    expect(reads(outer)).toEqual(['y.then_branch|middle|1']);
    expect(reads(inner)).toEqual(['y.then_branch/chosen.then_branch|inner add|1']);
  });

  test('a body does not see values of its sibling', () => {
    const elseBranch = g.scopes[4];
    expect(g.lookup(elseBranch, 'product')).toBeUndefined();
  });

  test('consumers are found at every depth', () => {
    expect(reads(find(g, 'x'))).toEqual([
      'y.then_branch|middle|0',
      'y.then_branch/chosen.then_branch|inner add|0',
      'y.else_branch|negate|0',
    ]);
    expect(reads(find(g, 'c')).length).toBe(2);
  });

  test('producers, inputs and outputs are told apart', () => {
    expect(find(g, 'y')).toMatchObject({
      isInput: false,
      isOutput: true,
      producer: { name: 'choose' },
    });
    expect(find(g, 'x')).toMatchObject({ isInput: true, isOutput: false });
    expect(find(g, 'x').producer).toBeUndefined();
    expect(find(g, 'sum', 'y.then_branch/chosen.then_branch')).toMatchObject({ isOutput: true });
    expect(find(g, 'w').initializer?.name).toBe('w');
  });
});

test('a value read twice by one node has two uses', () => {
  const g = new Graph(
    model({
      input: [value('x', [4])],
      node: [node('Add', ['x', 'x'], ['y'], {}, { name: 'twice' })],
      output: [value('y', [4])],
    }),
  );
  expect(reads(find(g, 'x'))).toEqual(['|twice|0', '|twice|1']);
});

test('an omitted optional input is no value', () => {
  const clip = node('Clip', ['x', '', 'max'], ['y']);
  const g = new Graph(
    model({
      input: [value('x', [4])],
      initializer: [floats('max', [], Float32Array.of(1))],
      node: [clip],
      output: [value('y', [4])],
    }),
  );
  expect(g.input(g.root, clip, 1)).toBeUndefined();
  expect(g.input(g.root, clip, 2)?.name).toBe('max');
  expect(g.input(g.root, clip, 3)).toBeUndefined();
});

test('an omitted optional output defines nothing', () => {
  const g = new Graph(
    model({
      input: [value('x', [4])],
      node: [node('Dropout', ['x'], ['y', ''])],
      output: [value('y', [4])],
    }),
  );
  expect([...g.root.values.keys()]).toEqual(['x', 'y']);
});

test('an initializer that is an input too is one value', () => {
  const g = new Graph(
    model({
      input: [value('x', [4]), value('w', [4])],
      initializer: [weight('w', [4])],
      node: [node('Add', ['x', 'w'], ['y'])],
      output: [value('y', [4])],
    }),
  );
  expect(find(g, 'w')).toMatchObject({ isInput: true, initializer: { name: 'w' } });
});

test('of two definitions the first counts', () => {
  const twice = [weight('w', [4]), { ...weight('w', [4]), docString: 'second' }];
  const g = new Graph(
    model({
      input: [value('x', [4])],
      initializer: twice,
      node: [
        node('Add', ['x', 'w'], ['y'], {}, { name: 'first' }),
        node('Sub', ['x', 'w'], ['y'], {}, { name: 'second' }),
      ],
      output: [value('y', [4])],
    }),
  );
  expect(find(g, 'w').initializer).toBe(twice[0]);
  expect(find(g, 'y').producer?.name).toBe('first');
});

test('nodes may come in any order', () => {
  const g = new Graph(
    model({
      input: [value('x', [4])],
      node: [
        node('Neg', ['h'], ['y'], {}, { name: 'late' }),
        node('Abs', ['x'], ['h'], {}, { name: 'early' }),
      ],
      output: [value('y', [4])],
    }),
  );
  expect(find(g, 'h').producer?.name).toBe('early');
  expect(reads(find(g, 'h'))).toEqual(['|late|0']);
});

describe('refuses, with exit 5', () => {
  const refusal = (make: () => unknown): ResectError => {
    try {
      make();
    } catch (error) {
      if (error instanceof ResectError) return error;
      throw error;
    }
    throw new Error('nothing was thrown');
  };

  test('a node that reads what nothing defines', () => {
    const { message, detail, exitCode } = refusal(
      () =>
        new Graph(
          model({
            node: [node('Neg', ['nowhere'], ['y'], {}, { name: 'lost' })],
            output: [value('y', [4])],
          }),
        ),
    );
    expect(`${message} ${detail.where}`).toMatch(/"nowhere".*lost/);
    expect(exitCode).toBe(5);
  });

  test('a body that reads a value of a sibling', () => {
    const bad = nested();
    const elseBranch = bad.graph!.node[0].attribute[1].g!;
    elseBranch.node[0].input = ['product'];
    expect(refusal(() => new Graph(bad)).message).toMatch(/"product"/);
  });

  test('a model without graph', () => {
    expect(refusal(() => new Graph({ opsetImport: [] })).exitCode).toBe(5);
  });
});
