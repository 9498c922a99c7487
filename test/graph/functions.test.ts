import { Tensor } from 'onnxruntime-node';
import { inlineFunctions } from '../../src/graph/functions.js';
import { Graph } from '../../src/graph/graph.js';
import {
  AttributeType,
  type FunctionProto,
  type ModelProto,
  type NodeProto,
} from '../../src/onnx/index.js';
import { floats, graph, ints, model, node, value, weight } from '../support/protos.js';
import { distance, runOnce } from '../support/run.js';
import { noiseTensor, reference, withFloats } from './helpers.js';

const domain = 'test.functions';

const fn = (name: string, parts: Partial<FunctionProto>): FunctionProto => ({
  domain,
  name,
  input: ['x'],
  output: ['y'],
  attribute: [],
  opsetImport: [{ version: 17 }, { domain, version: 1 }],
  node: [],
  ...parts,
});

const call = (name: string, input: string[], output: string[], more: Partial<NodeProto> = {}) =>
  node(name, input, output, {}, { domain, ...more });

/** x [batch, 4] -> y, by the given nodes and functions. */
const calling = (
  functions: FunctionProto[],
  nodes: NodeProto[],
  more: Partial<ModelProto['graph']> = {},
): ModelProto =>
  model(
    {
      input: [value('x', ['batch', 4])],
      node: nodes,
      output: [value('y', ['batch', 4])],
      ...more,
    },
    { opsetImport: [{ version: 17 }, { domain, version: 1 }], functions },
  );

/** Runs a model and its inlined form on the same inputs. */
async function expectSame(
  m: ModelProto,
  feeds: Record<string, Tensor> = { x: noiseTensor([3, 4]) },
) {
  const inlined = inlineFunctions(m);
  expect(inlined.functions).toEqual([]);
  new Graph(inlined); // every value is defined
  const [a, b] = [await runOnce(m, feeds), await runOnce(inlined, feeds)];
  expect(Object.keys(b)).toEqual(Object.keys(a));
  for (const name of Object.keys(a)) expect(distance(a[name], b[name])).toBe(0);
  return inlined;
}

const scaleByAttribute = (attributes: Partial<FunctionProto>) =>
  fn('Scale', {
    node: [
      {
        ...node('Constant', [], ['factor']),
        attribute: [reference('value_float', 'factor', AttributeType.float)],
      },
      node('Mul', ['x', 'factor'], ['y']),
    ],
    ...attributes,
  });

describe('inlined functions compute what the runtime computes', () => {
  test('one function called twice, also on its own result', async () => {
    const square = fn('Square', { node: [node('Mul', ['x', 'x'], ['y'])] });
    await expectSame(
      calling([square], [call('Square', ['x'], ['h']), call('Square', ['h'], ['y'])]),
    );
  });

  test('inner values of two calls, and of the caller, do not mix', async () => {
    const f = fn('F', { node: [node('Neg', ['x'], ['h']), node('Exp', ['h'], ['y'])] });
    await expectSame(
      calling(
        [f],
        [
          node('Abs', ['x'], ['h']),
          call('F', ['h'], ['a'], {}),
          call('F', ['a'], ['b'], {}),
          node('Add', ['b', 'h'], ['y']),
        ],
      ),
    );
  });

  test('functions that call functions', async () => {
    const inner = fn('Inner', { input: ['a', 'b'], node: [node('Sub', ['a', 'b'], ['y'])] });
    const middle = fn('Middle', {
      node: [
        node('Relu', ['x'], ['r']),
        call('Inner', ['x', 'r'], ['d']),
        call('Inner', ['d', 'x'], ['y']),
      ],
    });
    const outer = fn('Outer', {
      node: [call('Middle', ['x'], ['m']), call('Middle', ['m'], ['y'])],
    });
    await expectSame(calling([outer, middle, inner], [call('Outer', ['x'], ['y'])]));
  });

  test('an attribute of the call', async () => {
    const scale = scaleByAttribute({ attribute: ['factor'] });
    const given = withFloats(call('Scale', ['x'], ['y']), { factor: 2.5 });
    await expectSame(calling([scale], [given]));
  });

  test('the default of an attribute, and a call that overrules it', async () => {
    const scale = scaleByAttribute({
      attributeProto: [{ name: 'factor', type: AttributeType.float, f: -3 }],
    });
    await expectSame(
      calling(
        [scale],
        [call('Scale', ['x'], ['h']), withFloats(call('Scale', ['h'], ['y']), { factor: 0.25 })],
      ),
    );
  });

  test('an attribute without default and without value leaves the operator its own default', async () => {
    const leaky = fn('Leaky', {
      attribute: ['slope'],
      node: [
        {
          ...node('LeakyRelu', ['x'], ['y']),
          attribute: [reference('alpha', 'slope', AttributeType.float)],
        },
      ],
    });
    await expectSame(calling([leaky], [call('Leaky', ['x'], ['y'])]));
  });

  test('an attribute handed on through two functions', async () => {
    const scale = scaleByAttribute({ attribute: ['factor'] });
    const twice = fn('Twice', {
      attribute: ['by'],
      node: [
        {
          ...call('Scale', ['x'], ['h']),
          attribute: [reference('factor', 'by', AttributeType.float)],
        },
        {
          ...call('Scale', ['h'], ['y']),
          attribute: [reference('factor', 'by', AttributeType.float)],
        },
      ],
    });
    await expectSame(
      calling([scale, twice], [withFloats(call('Twice', ['x'], ['y']), { by: 1.5 })]),
    );
  });

  test('bodies inside a function, with own initializers and captured values', async () => {
    const choose = fn('Choose', {
      input: ['x', 'c'],
      node: [
        node('Neg', ['x'], ['h']),
        node('If', ['c'], ['y'], {
          then_branch: graph({
            initializer: [weight('w', [4])],
            node: [node('Add', ['h', 'w'], ['a'])],
            output: [{ name: 'a' }],
          }),
          else_branch: graph({ node: [node('Mul', ['h', 'x'], ['b'])], output: [{ name: 'b' }] }),
        }),
      ],
    });
    const m = calling(
      [choose],
      [call('Choose', ['x', 'c'], ['h']), call('Choose', ['h', 'c'], ['y'])],
      {
        input: [value('x', ['batch', 4]), value('c', [], 'bool')],
      },
    );
    for (const taken of [true, false])
      await expectSame(m, { x: noiseTensor([2, 4]), c: new Tensor('bool', [taken], []) });
  });

  test('a Loop inside a function', async () => {
    const repeat = fn('Repeat', {
      input: ['x', 'n'],
      node: [
        node('Constant', [], ['go'], {
          value: { dims: [], dataType: 9, rawData: Uint8Array.of(1) },
        }),
        node('Loop', ['n', 'go', 'x'], ['y'], {
          body: graph({
            input: [
              value('i', [], 'int64'),
              value('on', [], 'bool'),
              { name: 'state', type: value('', [], 'float32').type },
            ],
            node: [node('Identity', ['on'], ['still']), node('Add', ['state', 'x'], ['next'])],
            output: [value('still', [], 'bool'), { name: 'next' }],
          }),
        }),
      ],
    });
    // A loop-carried value without shape, as exporters write it.
    repeat.node[1].attribute[0].g!.input[2].type = { tensorType: { elemType: 1 } };
    const m = calling([repeat], [call('Repeat', ['x', 'n'], ['y'])], {
      initializer: [ints('n', 3)],
    });
    m.graph!.initializer[0].dims = [];
    await expectSame(m);
  });

  test('a call inside a body of the main graph', async () => {
    const square = fn('Square', { node: [node('Mul', ['x', 'x'], ['y'])] });
    const m = calling(
      [square],
      [
        node('If', ['c'], ['y'], {
          then_branch: graph({ node: [call('Square', ['x'], ['s'])], output: [{ name: 's' }] }),
          else_branch: graph({ node: [node('Neg', ['x'], ['t'])], output: [{ name: 't' }] }),
        }),
      ],
      { input: [value('x', ['batch', 4]), value('c', [], 'bool')] },
    );
    for (const taken of [true, false])
      await expectSame(m, { x: noiseTensor([2, 4]), c: new Tensor('bool', [taken], []) });
  });

  test('omitted inputs at the end and in between', async () => {
    const clip = fn('Limit', {
      input: ['x', 'low', 'high'],
      node: [node('Clip', ['x', 'low', 'high'], ['y'])],
    });
    const initializer = [floats('half', [], Float32Array.of(0.5))];
    await expectSame(
      calling(
        [clip],
        [call('Limit', ['x', '', 'half'], ['h']), call('Limit', ['h', 'half'], ['y'])],
        { initializer },
      ),
    );
  });

  test('an input that the function does not use', async () => {
    const f = fn('First', { input: ['x', 'spare'], node: [node('Abs', ['x'], ['y'])] });
    await expectSame(calling([f], [call('First', ['x', 'x'], ['y'])]));
  });

  test('overloads', async () => {
    const abs = fn('F', { overload: 'abs', node: [node('Abs', ['x'], ['y'])] });
    const neg = fn('F', { overload: 'neg', node: [node('Neg', ['x'], ['y'])] });
    const m = calling(
      [abs, neg],
      [call('F', ['x'], ['h'], { overload: 'abs' }), call('F', ['h'], ['y'], { overload: 'neg' })],
    );
    await expectSame({ ...m, irVersion: 10 });
  });

  test('a function of the standard domain, spelt either way', async () => {
    const inlined = inlineFunctions(
      calling(
        [fn('Mine', { domain: '', node: [node('Abs', ['x'], ['y'])] })],
        [node('Mine', ['x'], ['y'], {}, { domain: 'ai.onnx' })],
      ),
    );
    expect(inlined.graph?.node.map(({ opType }) => opType)).toEqual(['Abs']);
  });
});

describe('what inlining leaves alone', () => {
  test('a model without functions is returned as it is', () => {
    const m = model({ node: [node('Relu', ['x'], ['y'])] });
    expect(inlineFunctions(m)).toBe(m);
  });

  test('the original is not changed', () => {
    const m = calling(
      [scaleByAttribute({ attribute: ['factor'] })],
      [withFloats(call('Scale', ['x'], ['y']), { factor: 2 })],
    );
    const before = structuredClone(m);
    inlineFunctions(m);
    expect(m).toEqual(before);
  });

  test('tensors are the same objects, once per call', () => {
    const w = weight('', [4, 4]);
    const dense = fn('Dense', {
      node: [node('Constant', [], ['w'], { value: w }), node('MatMul', ['x', 'w'], ['y'])],
    });
    const { graph: flat } = inlineFunctions(
      calling([dense], [call('Dense', ['x'], ['h']), call('Dense', ['h'], ['y'])]),
    );
    const constants = flat!.node.filter(({ opType }) => opType === 'Constant');
    expect(constants.map(({ attribute }) => attribute[0].t === w)).toEqual([true, true]);
  });

  test('names of nodes stay unique', () => {
    const dense = fn('F', {
      node: [
        node('Abs', ['x'], ['h'], {}, { name: 'n' }),
        node('Neg', ['h'], ['y'], {}, { name: 'm' }),
      ],
    });
    const { graph: flat } = inlineFunctions(
      calling(
        [dense],
        [
          call('F', ['x'], ['a']),
          call('F', ['a'], ['b'], { name: 'call' }),
          call('F', ['b'], ['y'], { name: 'call' }),
        ],
      ),
    );
    const all = flat!.node.map(({ name }) => name);
    expect(new Set(all).size).toBe(6);
  });

  test('imports of functions are added to the model’s', () => {
    const f = fn('F', {
      opsetImport: [{ version: 17 }, { domain: 'com.microsoft', version: 1 }],
      node: [node('Gelu', ['x'], ['y'], {}, { domain: 'com.microsoft' })],
    });
    const { opsetImport } = inlineFunctions(calling([f], [call('F', ['x'], ['y'])]));
    expect(opsetImport.map(({ domain: d = '', version }) => [d, version])).toEqual([
      ['', 17],
      [domain, 1],
      ['com.microsoft', 1],
    ]);
  });
});

test('the standard domain is imported once, whichever way it is spelt', () => {
  const f = fn('F', {
    opsetImport: [{ domain: 'ai.onnx', version: 17 }],
    node: [node('Abs', ['x'], ['y'])],
  });
  const inlined = inlineFunctions(calling([f], [call('F', ['x'], ['y'])]));
  expect(inlined.opsetImport.map(({ domain: d = '' }) => d)).toEqual(['', domain]);
});

describe('refuses, with exit 5', () => {
  const refuses = (m: ModelProto) =>
    expect(() => inlineFunctions(m)).toThrow(expect.objectContaining({ exitCode: 5 }));

  test('a function that calls itself', () => {
    refuses(calling([fn('F', { node: [call('F', ['x'], ['y'])] })], [call('F', ['x'], ['y'])]));
  });

  test('functions that call each other', () => {
    const f = fn('F', { node: [call('G', ['x'], ['h']), call('G', ['h'], ['y'])] });
    const g = fn('G', { node: [call('F', ['x'], ['h']), call('F', ['h'], ['y'])] });
    refuses(calling([f, g], [call('F', ['x'], ['y'])]));
  });

  test('a recursion through a body', () => {
    const f = fn('F', {
      input: ['x', 'c'],
      node: [
        node('If', ['c'], ['y'], {
          then_branch: graph({ node: [call('F', ['x', 'c'], ['a'])], output: [{ name: 'a' }] }),
          else_branch: graph({ node: [node('Neg', ['x'], ['b'])], output: [{ name: 'b' }] }),
        }),
      ],
    });
    refuses(
      calling([f], [call('F', ['x', 'c'], ['y'])], {
        input: [value('x', [1, 4]), value('c', [], 'bool')],
      }),
    );
  });

  test('functions that call each other twice at every level, without cycle', () => {
    const levels = Array.from({ length: 60 }, (_, i) =>
      fn(`F${i}`, {
        node:
          i === 0
            ? [node('Abs', ['x'], ['y'])]
            : [call(`F${i - 1}`, ['x'], ['h']), call(`F${i - 1}`, ['h'], ['y'])],
      }),
    );
    refuses(calling(levels, [call('F59', ['x'], ['y'])]));
  });
});
