import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeModel, type FunctionProto } from '../../src/onnx/index.js';
import { field, message, modelOf } from '../onnx/wire.js';
import { npy, npz } from './npz.js';
import { floats, graph, ints, linear, node, value, weight } from './protos.js';

/** A model file that is wrong, and what a user is to be told about it. */
export interface BadModel {
  name: string;
  /** Puts `model.onnx`, and whatever belongs to it, into a folder. */
  make: (folder: string) => void;
  /** Flags of `sparsify`, where the usual ones will not do. */
  flags?: (folder: string) => string[];
  /** Exit code of a command that edits the model; 0 where only the runtime minds. */
  code: number;
  /** What is said, and where. */
  says: RegExp;
}

/** A case that is only bytes. */
export const bytes = (
  name: string,
  content: () => Uint8Array,
  code: number,
  says: RegExp,
): BadModel => ({
  name,
  make: (folder) => writeFileSync(join(folder, 'model.onnx'), content()),
  code,
  says,
});

/**
 * A model that the runtime refuses, for a reason that weights have nothing to do with: it can be
 * edited, but what that does to its outputs cannot be measured, and the runtime's reason is told.
 */
const refused = (name: string, content: () => Uint8Array, reason: RegExp): BadModel =>
  bytes(name, content, 0, new RegExp(`not compared[\\s\\S]*${reason.source}`, reason.flags));

/** A chain of functions of which each calls the next one `calls` times. */
function functionChain(length: number, calls: number): FunctionProto[] {
  return Array.from({ length }, (_, i) => ({
    name: `f${i}`,
    domain: 'local',
    input: ['a'],
    output: ['b'],
    attribute: [],
    opsetImport: [{ version: 17 }, { domain: 'local', version: 1 }],
    node:
      i === length - 1
        ? [node('Relu', ['a'], ['b'])]
        : Array.from({ length: calls }, (_, k) =>
            node(
              `f${i + 1}`,
              [k === 0 ? 'a' : `v${k}`],
              [k === calls - 1 ? 'b' : `v${k + 1}`],
              {},
              { domain: 'local' },
            ),
          ),
  }));
}

const calling = (functions: FunctionProto[]) =>
  linear(
    {
      node: [
        node('MatMul', ['x', 'w'], ['h']),
        node('f0', ['h'], ['y'], {}, { domain: 'local', name: 'call' }),
      ],
    },
    { functions, opsetImport: [{ version: 17 }, { domain: 'local', version: 1 }] },
  );

const conv = (attributes: Parameters<typeof node>[3]) =>
  linear({
    node: [node('Conv', ['x', 'w'], ['y'], attributes, { name: 'convolve' })],
    initializer: [weight('w', [4, 2, 3, 3])],
    input: [value('x', ['batch', 2, 8, 8])],
    output: [value('y', ['batch', 4, 'h', 'w'])],
  });

/** `y = x f(w)`: `between` makes `v` of the weight. */
const through = (between: ReturnType<typeof node>, ...arguments_: ReturnType<typeof ints>[]) =>
  linear({
    node: [between, node('MatMul', ['x', 'v'], ['y'], {}, { name: 'multiply' })],
    initializer: [weight('w', [8, 4]), ...arguments_],
  });

const wiring: BadModel[] = [
  bytes('no graph', () => encodeModel({ irVersion: 8, opsetImport: [] }), 5, /no graph/),
  bytes('no nodes', () => linear({ node: [] }), 5, /no linear layer/),
  bytes(
    'nodes that wait for each other',
    () =>
      linear({
        node: [
          node('Add', ['x', 'b'], ['a'], {}, { name: 'one' }),
          node('Relu', ['a'], ['b'], {}, { name: 'two' }),
          node('MatMul', ['b', 'w'], ['y'], {}, { name: 'multiply' }),
        ],
      }),
    5,
    /cycle[\s\S]*(one|two)/,
  ),
  bytes(
    'a node that waits for itself',
    () => linear({ node: [node('MatMul', ['y', 'w'], ['y'], {}, { name: 'multiply' })] }),
    5,
    /cycle[\s\S]*multiply/,
  ),
  bytes(
    'an input that nothing defines',
    () => linear({ node: [node('MatMul', ['nowhere', 'w'], ['y'], {}, { name: 'multiply' })] }),
    5,
    /"nowhere"[\s\S]*multiply/,
  ),
  refused('an output that nothing makes', () => linear({ output: [value('z', [4])] }), /\bz\b/),
  refused(
    'one value made twice',
    () =>
      linear({
        node: [
          node('MatMul', ['x', 'w'], ['y'], {}, { name: 'one' }),
          node('MatMul', ['x', 'w'], ['y'], {}, { name: 'two' }),
        ],
      }),
    /Duplicate[\s\S]*y/,
  ),
  refused(
    'two nodes of one name',
    () =>
      linear({
        node: [
          node('MatMul', ['x', 'w'], ['h'], {}, { name: 'twin' }),
          node('Relu', ['h'], ['y'], {}, { name: 'twin' }),
        ],
      }),
    /twin/,
  ),
  refused(
    'two inputs of one name',
    () => linear({ input: [value('x', ['batch', 8]), value('x', ['batch', 8])] }),
    /Duplicate[\s\S]*x/,
  ),
  refused(
    'two weights of one name, of different shapes',
    () => linear({ initializer: [weight('w', [8, 4]), weight('w', [8, 6])] }),
    /initializer w/,
  ),
  refused(
    'an If without branches',
    () =>
      linear({
        node: [node('If', ['x'], ['h'], {}, { name: 'branch' }), node('MatMul', ['h', 'w'], ['y'])],
      }),
    /branch/,
  ),
  bytes(
    'graphs nested without end',
    () => {
      let body = field(2, 'innermost');
      for (let depth = 0; depth < 2000; depth++) body = message(1, message(5, message(6, body)));
      return modelOf(body);
    },
    5,
    /nested/,
  ),
  bytes(
    'a function that calls itself',
    () =>
      calling([
        { ...functionChain(1, 1)[0], node: [node('f0', ['a'], ['b'], {}, { domain: 'local' })] },
      ]),
    5,
    /functions[\s\S]*without end/,
  ),
  bytes('functions that make 2^40 nodes', () => calling(functionChain(41, 2)), 5, /functions/),
];

const operators: BadModel[] = [
  bytes(
    'a weight transposed by an axis that is not there',
    () => through(node('Transpose', ['w'], ['v'], { perm: [0, 7] })),
    5,
    /Transpose/,
  ),
  bytes(
    'a weight transposed twice over one axis',
    () => through(node('Transpose', ['w'], ['v'], { perm: [0, 0] })),
    5,
    /Transpose/,
  ),
  bytes(
    'a weight reshaped to another size',
    () => through(node('Reshape', ['w', 's'], ['v']), ints('s', 8, 400000)),
    5,
    /Reshape/,
  ),
  bytes(
    'a weight reshaped to a negative size',
    () => through(node('Reshape', ['w', 's'], ['v']), ints('s', -1, -1)),
    5,
    /Reshape/,
  ),
  bytes(
    'a weight of one axis',
    () => linear({ initializer: [weight('w', [32])] }),
    5,
    /vector|no layer/,
  ),
  refused(
    'a weight that does not fit the input',
    () => linear({ initializer: [weight('w', [5, 4])] }),
    /multiply/,
  ),
  bytes('a convolution in no groups', () => conv({ group: 0 }), 5, /group/),
  bytes('a convolution in -1 groups', () => conv({ group: -1 }), 5, /group/),
  bytes('a convolution in 3 groups of 4 channels', () => conv({ group: 3 }), 5, /group/),
  refused(
    'a convolution with strides of 0',
    () => conv({ strides: [0, 0] }),
    /convolve[\s\S]*strides/,
  ),
  refused('a convolution with one pad', () => conv({ pads: [1] }), /convolve[\s\S]*pads/),
  refused('a kernel shape that lies', () => conv({ kernel_shape: [5, 5] }), /kernel_shape/),
  bytes(
    'a Gemm without weight',
    () => linear({ node: [node('Gemm', ['x'], ['y'], {}, { name: 'multiply' })] }),
    5,
    /no linear layer/,
  ),
  bytes(
    'a Constant without value',
    () => linear({ node: [node('Constant', [], ['v']), node('MatMul', ['x', 'v'], ['y'])] }),
    5,
    /constant/,
  ),
  refused(
    'an attribute of another type',
    () =>
      linear({
        node: [node('Gemm', ['x', 'w'], ['y'], { transB: 'yes' }, { name: 'multiply' })],
      }),
    /multiply[\s\S]*transB/,
  ),
  refused(
    'an operator that the standard does not have',
    () => linear({ node: [node('MatMul', ['x', 'w'], ['h']), node('Frobnicate', ['h'], ['y'])] }),
    /Frobnicate/,
  ),
  refused('no opset', () => linear({}, { opsetImport: [] }), /opset/),
  refused(
    'an opset of the far future',
    () => linear({}, { opsetImport: [{ version: 9999 }] }),
    /./,
  ),
  refused('a negative opset', () => linear({}, { opsetImport: [{ version: -3 }] }), /-3/),
  refused(
    'an input of strings',
    () => linear({ input: [value('x', ['batch', 8], 'string')] }),
    /x/,
  ),
];

/** Sizes and depths that a file of a few bytes, or of a few megabytes, can ask for. */
const sizes: BadModel[] = [
  refused('an input of 16 GiB', () => linear({ input: [value('x', [2 ** 29, 8])] }), /./),
  refused('an input of 3 GiB', () => linear({ input: [value('x', [1e8, 8])] }), /./),
  refused(
    'a constant of 64 GiB, made when the model runs',
    () =>
      linear({
        node: [
          node('ConstantOfShape', ['s'], ['big']),
          node('ReduceSum', ['big'], ['r'], { keepdims: 0 }),
          node('MatMul', ['x', 'w'], ['h']),
          node('Add', ['h', 'r'], ['y']),
        ],
        initializer: [weight('w', [8, 4]), ints('s', 2 ** 34)],
      }),
    /memory/,
  ),
  // ONNX Runtime 1.30 aborts the process when an LSTM or GRU gets a batch of 0.
  refused(
    'a recurrent layer over no sequences',
    () =>
      linear({
        node: [
          node('LSTM', ['x', 'i', 'r'], ['h'], { hidden_size: 4 }),
          node('MatMul', ['h', 'w'], ['y'], {}, { name: 'multiply' }),
        ],
        initializer: [weight('i', [1, 16, 8]), weight('r', [1, 16, 4]), weight('w', [4, 3])],
        input: [value('x', [2, 0, 8])],
        output: [value('y', [2, 1, 0, 3])],
      }),
    /./,
  ),
  {
    ...bytes(
      'a batch of 10^9, to be filled from data',
      () => linear({ input: [value('x', [1e9, 8])], output: [value('y', [1e9, 4])] }),
      6,
      /\bx\b/,
    ),
    flags(folder) {
      const data = join(folder, '..', 'batch.npz');
      writeFileSync(data, npz({ x: npy('<f4', [2, 8], new Float32Array(16)) }));
      return ['--sparsity', '0.5', '--calib', data];
    },
  },
  bytes(
    '20,000 nodes in reverse order',
    () => {
      const count = 20_000;
      const chain = Array.from({ length: count }, (_, i) =>
        node('Relu', [i === 0 ? 'h' : `v${i}`], [i === count - 1 ? 'y' : `v${i + 1}`]),
      );
      return linear({ node: [...chain.reverse(), node('MatMul', ['x', 'w'], ['h'])] });
    },
    0,
    /1 of 1 layers/,
  ),
  bytes(
    'a weight behind 20,000 Identity nodes, in reverse order',
    () => {
      const count = 20_000;
      const chain = Array.from({ length: count }, (_, i) =>
        node('Identity', [i === 0 ? 'w' : `v${i}`], [`v${i + 1}`]),
      );
      return linear({ node: [node('MatMul', ['x', `v${count}`], ['y']), ...chain.reverse()] });
    },
    0,
    /1 of 1 layers/,
  ),
  bytes(
    'a name of a million letters',
    () => linear({ node: [node('MatMul', ['x', 'w'], ['y'], {}, { name: 'n'.repeat(1e6) })] }),
    0,
    /nnn…nnn/,
  ),
  bytes(
    "names of JavaScript's own properties",
    () =>
      linear(
        {
          node: [
            node('MatMul', ['__proto__', 'constructor'], ['toString'], {}, { name: '__proto__' }),
            node('__proto__', ['toString'], ['hasOwnProperty'], {}, { domain: 'constructor' }),
          ],
          initializer: [weight('constructor', [8, 4])],
          input: [value('__proto__', ['__proto__', 8])],
          output: [value('hasOwnProperty', ['__proto__', 4])],
        },
        {
          opsetImport: [
            { version: 17 },
            { domain: 'constructor', version: 1 },
            { domain: '__proto__', version: 1 },
          ],
          metadataProps: [{ key: '__proto__', value: 'x' }],
        },
      ),
    0,
    /1 of 1 layers/,
  ),
  bytes(
    'weights that are all zero',
    () => linear({ initializer: [floats('w', [8, 4], new Float32Array(32))] }),
    5,
    /No layer changed/,
  ),
  bytes(
    'a loop whose body is empty',
    () =>
      linear({
        node: [
          node('MatMul', ['x', 'w'], ['h']),
          node('Loop', ['', '', 'h'], ['y'], { body: graph({}) }, { name: 'loop' }),
        ],
      }),
    0,
    /not compared/,
  ),
];

/** Models that can be decoded, but not be what they say. */
export const badGraphs: BadModel[] = [...wiring, ...operators, ...sizes];
