import fc from 'fast-check';
import { bottlenecks } from '../../src/graph/bottlenecks.js';
import type { GraphProto } from '../../src/onnx/index.js';
import { graph, node, value, weight } from '../support/protos.js';

const find = (nodes: GraphProto['node'], more: Partial<GraphProto> = {}) =>
  bottlenecks(
    graph({ node: nodes, input: [value('x', ['n', 8])], output: [value('y', ['n', 8])], ...more }),
    'y',
  );

test('every value of a chain', () => {
  expect(
    find([node('Relu', ['x'], ['a']), node('Relu', ['a'], ['b']), node('Relu', ['b'], ['y'])]),
  ).toEqual(['a', 'b']);
});

test('what a shortcut passes by is none, the sum behind it is one', () => {
  const nodes = [
    node('Relu', ['x'], ['a']),
    node('Relu', ['a'], ['b']),
    node('Add', ['a', 'b'], ['c']),
    node('Relu', ['c'], ['y']),
  ];
  expect(find(nodes)).toEqual(['a', 'c']);
  // Files need not be sorted.
  expect(find([...nodes].reverse())).toEqual(['a', 'c']);
});

test('weights, shapes and what the output does not need are no ways around', () => {
  expect(
    find(
      [
        node('MatMul', ['x', 'w'], ['a']),
        node('Shape', ['x'], ['shape']),
        node('Reshape', ['a', 'shape'], ['b']),
        node('Relu', ['x'], ['other']),
        node('Relu', ['b'], ['y']),
      ],
      { initializer: [weight('w', [8, 8])] },
    ),
  ).toEqual(['a', 'b']);
});

test('a second input is a way around until it has been read', () => {
  expect(
    find(
      [node('Relu', ['x'], ['a']), node('Mul', ['a', 'mask'], ['b']), node('Relu', ['b'], ['y'])],
      { input: [value('x', ['n', 8]), value('mask', ['n', 8])] },
    ),
  ).toEqual(['b']);
});

test('of several outputs only those that are needed', () => {
  expect(
    find([
      node('Split', ['x'], ['a', 'b'], { axis: 1 }),
      node('Add', ['a', 'b'], ['c']),
      node('Relu', ['c'], ['y']),
    ]),
  ).toEqual(['c']);
});

test('on any graph: those without which no way leads to the output', () => {
  const anyGraph = fc
    .array(fc.array(fc.nat(), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 12 })
    .map((reads) =>
      reads.map((picks, i) => {
        const names = ['x', ...Array.from({ length: i }, (_, k) => `v${k}`)];
        const inputs = [...new Set(picks.map((pick) => names[pick % names.length]))];
        return node('Sum', inputs, [i === reads.length - 1 ? 'y' : `v${i}`]);
      }),
    );
  fc.assert(
    fc.property(anyGraph, (nodes) => {
      const reaches = (without?: string) => {
        const reached = new Set(['x']);
        for (const { input, output } of nodes)
          if (output[0] !== without && input.some((name) => reached.has(name)))
            reached.add(output[0]);
        return reached.has('y');
      };
      const cuts = nodes.flatMap(({ output: [name] }) =>
        name !== 'y' && reaches() && !reaches(name) ? [name] : [],
      );
      expect(find(nodes)).toEqual(cuts);
    }),
  );
});
