import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { encodeModel, type FunctionProto, type TensorProto } from '../../src/onnx/index.js';
import { field, message, modelOf } from '../onnx/wire.js';
import { inRepository } from './cli.js';
import { floats, ints, linear, model, node, value, weight } from './protos.js';

/** A file that is wrong, and what a user is to be told about it. */
export interface BadModel {
  name: string;
  /** Puts `model.onnx`, and whatever belongs to it, into a folder. */
  make: (folder: string) => void;
  /** Exit code of the commands that read the model. */
  code: number;
  /** What the message must say; always also the path of the file. */
  says: RegExp;
}

const healthy = () => readFileSync(inRepository('fixtures/resnet8/resnet8.onnx'));

/** A case that is only bytes. */
const bytes = (name: string, content: () => Uint8Array, code: number, says: RegExp): BadModel => ({
  name,
  make: (folder) => writeFileSync(join(folder, 'model.onnx'), content()),
  code,
  says,
});

const tensor = (parts: Partial<TensorProto>): TensorProto => ({
  name: 'w',
  dims: [8, 4],
  dataType: 1,
  ...parts,
});

/** A linear model whose weight is stored in some wrong way. */
const badWeight = (name: string, parts: Partial<TensorProto>, says: RegExp, code = 5): BadModel =>
  bytes(name, () => linear({ initializer: [tensor(parts)] }), code, says);

/** A linear model whose weight is said to be in another file. */
const external = (
  name: string,
  location: string | undefined,
  code: number,
  says: RegExp,
  {
    prepare = () => {},
    entries = {},
  }: { prepare?: (folder: string) => void; entries?: Record<string, string> } = {},
): BadModel => ({
  name: `external data: ${name}`,
  code,
  says,
  make(folder) {
    const all = location === undefined ? entries : { location, ...entries };
    const externalData = Object.entries(all).map(([key, text]) => ({ key, value: text }));
    const w = tensor({ dataLocation: 1, externalData });
    writeFileSync(join(folder, 'model.onnx'), linear({ initializer: [w] }));
    prepare(folder);
  },
});

const weights = (folder: string) => writeFileSync(join(folder, 'weights'), new Uint8Array(128));

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

const conv = (attributes: Parameters<typeof node>[3], shape = [4, 2, 3, 3]) =>
  linear({
    node: [node('Conv', ['x', 'w'], ['y'], attributes, { name: 'convolve' })],
    initializer: [weight('w', shape)],
    input: [value('x', ['batch', 2, 8, 8])],
    output: [value('y', ['batch', 4, 'h', 'w'])],
  });

/** `y = x f(w)`, with a node between the weight and its consumer. */
const through = (...between: Parameters<typeof node>) =>
  linear({
    node: [node(...between), node('MatMul', ['x', 'v'], ['y'], {}, { name: 'multiply' })],
  });

const files: BadModel[] = [
  {
    name: 'there is none',
    make: () => {},
    code: 7,
    says: /no such file/,
  },
  { name: 'a folder', make: (f) => mkdirSync(join(f, 'model.onnx')), code: 7, says: /folder/ },
  {
    name: 'a pipe',
    make: (f) => execFileSync('mkfifo', [join(f, 'model.onnx')]),
    code: 7,
    says: /pipe/,
  },
  {
    name: 'a device without end',
    make: (f) => symlinkSync('/dev/zero', join(f, 'model.onnx')),
    code: 7,
    says: /device/,
  },
  {
    name: 'a link to nothing',
    make: (f) => symlinkSync('nowhere', join(f, 'model.onnx')),
    code: 7,
    says: /no such file/,
  },
  {
    name: 'a link to itself',
    make: (f) => symlinkSync('model.onnx', join(f, 'model.onnx')),
    code: 7,
    says: /link/,
  },
  {
    name: 'a file of 2 GiB',
    make(f) {
      writeFileSync(join(f, 'model.onnx'), '');
      truncateSync(join(f, 'model.onnx'), 2 ** 31);
    },
    code: 5,
    says: /too large/,
  },
  {
    name: 'zeros, 1 GiB',
    make(f) {
      writeFileSync(join(f, 'model.onnx'), '');
      truncateSync(join(f, 'model.onnx'), 2 ** 30);
    },
    code: 5,
    says: /not|damaged|invalid/i,
  },
  bytes('empty', () => new Uint8Array(), 5, /empty/),
  bytes('one byte', () => Uint8Array.of(8), 5, /byte/),
  bytes('cut in half', () => healthy().subarray(0, 160_000), 5, /promises|ends|damaged/),
  bytes('without its last byte', () => healthy().subarray(0, -1), 5, /promises|ends|damaged/),
  bytes('one length bit flipped', () => healthy().fill(0xff, 12, 13), 5, /byte|damaged/),
  bytes('gzipped', () => gzipSync(healthy()), 5, /gzip/),
  bytes('a safetensors file', () => Buffer.from('\x40\0\0\0\0\0\0\0{"w":{}}'), 5, /safetensors/),
  bytes('a pickle', () => Buffer.from('\x80\x04\x95\0', 'latin1'), 5, /pickle/),
  bytes('a web page', () => Buffer.from('<!doctype html><title>404</title>'), 5, /HTML/),
  bytes('text', () => Buffer.from('this is not a model\n'.repeat(20)), 5, /not|damaged/),
  bytes('noise', () => Uint8Array.from({ length: 4096 }, (_, i) => (i * i * 31 + 7) & 255), 5, /./),
];

const tensors: BadModel[] = [
  badWeight('a promise of 16 GiB', { dims: [65536, 65536], rawData: new Uint8Array(16) }, /"?w"?/),
  badWeight('a promise of 16 GiB, nothing there', { dims: [65536, 65536] }, /"?w"?/),
  badWeight(
    'a promise of 16 GiB in a typed field',
    { dims: [65536, 65536], floatData: [new Uint8Array(16)] },
    /"?w"?/,
  ),
  badWeight('a negative dimension', { dims: [-8, 4], rawData: new Uint8Array(128) }, /"?w"?/),
  badWeight(
    'dimensions whose product overflows',
    { dims: [2 ** 52, 2 ** 52, 16], rawData: new Uint8Array(128) },
    /"?w"?/,
  ),
  badWeight('bytes that do not divide', { rawData: new Uint8Array(127) }, /128 bytes/),
  badWeight('strings', { dataType: 8, stringData: [new Uint8Array(3)] }, /string|float|weight/),
  badWeight('an element type of the future', { dataType: 99, rawData: new Uint8Array(4) }, /./),
  badWeight('complex numbers', { dataType: 14, rawData: new Uint8Array(256) }, /complex|type/),
  badWeight('integers', { dataType: 7, rawData: new Uint8Array(256) }, /int64|integer|quantized/),
  badWeight('no values', { dims: [0, 4] }, /empty|weight/),
  badWeight(
    'not a number',
    { rawData: new Uint8Array(Float32Array.from({ length: 32 }, () => Number.NaN).buffer) },
    /NaN/,
  ),
  badWeight(
    'one infinity',
    {
      rawData: new Uint8Array(
        Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? Number.POSITIVE_INFINITY : i))
          .buffer,
      ),
    },
    /infinite/,
  ),
  bytes(
    'sparse indices out of range',
    () =>
      linear({
        initializer: [],
        sparseInitializer: [
          {
            values: floats('w', [2], Float32Array.of(1, 2)),
            indices: ints('', 3, 5000),
            dims: [8, 4],
          },
        ],
      }),
    5,
    /./,
  ),
  bytes(
    'sparse promise of 16 GiB',
    () =>
      linear({
        initializer: [],
        sparseInitializer: [
          {
            values: floats('w', [1], Float32Array.of(1)),
            indices: ints('', 3),
            dims: [65536, 65536],
          },
        ],
      }),
    5,
    /./,
  ),
];

const externals: BadModel[] = [
  external('upwards', '../../../../etc/passwd', 7, /outside/),
  external('upwards with backslashes', '..\\..\\secret', 7, /outside/),
  external('absolute', '/etc/passwd', 7, /outside/),
  external('a drive', 'C:\\secret', 7, /outside/),
  external('a name with NUL', 'weights\0.txt', 7, /outside|NUL/),
  external('missing file', 'weights', 7, /weights/),
  external('no location', undefined, 5, /"w"/, { entries: { offset: '0' } }),
  external('a link', 'weights', 7, /link/, {
    prepare: (f) => symlinkSync('/etc/passwd', join(f, 'weights')),
  }),
  external('below a linked folder', 'sub/passwd', 7, /link/, {
    prepare: (f) => symlinkSync('/etc', join(f, 'sub')),
  }),
  external('a pipe', 'weights', 7, /pipe/, {
    prepare: (f) => execFileSync('mkfifo', [join(f, 'weights')]),
  }),
  external('a folder', 'weights', 7, /folder/, { prepare: (f) => mkdirSync(join(f, 'weights')) }),
  external('an offset past the end', 'weights', 5, /"w"/, {
    prepare: weights,
    entries: { offset: '4096' },
  }),
  external('a negative offset', 'weights', 5, /"w"/, {
    prepare: weights,
    entries: { offset: '-8' },
  }),
  external('an offset that is no number', 'weights', 5, /"w"/, {
    prepare: weights,
    entries: { offset: '0x10' },
  }),
  external('a length that disagrees with the shape', 'weights', 5, /"w"/, {
    prepare: weights,
    entries: { length: '64' },
  }),
  external('the model itself', 'model.onnx', 5, /"w"|model\.onnx/, { entries: { offset: '0' } }),
];

const graphs: BadModel[] = [
  bytes('no graph', () => encodeModel({ irVersion: 8, opsetImport: [] }), 5, /graph/),
  bytes(
    'two nodes that wait for each other',
    () =>
      linear({
        node: [
          node('Add', ['x', 'b'], ['a'], {}, { name: 'one' }),
          node('Relu', ['a'], ['b'], {}, { name: 'two' }),
          node('MatMul', ['b', 'w'], ['y'], {}, { name: 'multiply' }),
        ],
      }),
    5,
    /cycle/,
  ),
  bytes(
    'a node that waits for itself',
    () => linear({ node: [node('MatMul', ['y', 'w'], ['y'], {}, { name: 'multiply' })] }),
    5,
    /cycle/,
  ),
  bytes(
    'an input that nothing defines',
    () => linear({ node: [node('MatMul', ['nowhere', 'w'], ['y'], {}, { name: 'multiply' })] }),
    5,
    /"nowhere"[\s\S]*multiply/,
  ),
  bytes('no nodes', () => linear({ node: [] }), 5, /./),
  bytes('an output that nothing makes', () => linear({ output: [value('z', [4])] }), 5, /"?z"?/),
  bytes(
    'one value made twice',
    () =>
      linear({
        node: [
          node('MatMul', ['x', 'w'], ['y'], {}, { name: 'one' }),
          node('MatMul', ['x', 'w'], ['y'], {}, { name: 'two' }),
        ],
      }),
    5,
    /"?y"?/,
  ),
  bytes(
    'nodes nested without end',
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
        {
          ...functionChain(1, 1)[0],
          node: [node('f0', ['a'], ['b'], {}, { domain: 'local' })],
        },
      ]),
    5,
    /without end|f0/,
  ),
  bytes('functions that expand to 2^40 nodes', () => calling(functionChain(41, 2)), 5, /function/i),
  bytes(
    'a weight transposed by an axis that is not there',
    () => through('Transpose', ['w'], ['v'], { perm: [0, 7] }),
    5,
    /./,
  ),
  bytes(
    'a weight transposed twice over one axis',
    () => through('Transpose', ['w'], ['v'], { perm: [0, 0] }),
    5,
    /./,
  ),
  bytes(
    'a weight reshaped to another size',
    () =>
      linear({
        node: [node('Reshape', ['w', 's'], ['v']), node('MatMul', ['x', 'v'], ['y'])],
        initializer: [weight('w', [8, 4]), ints('s', 8, 400000)],
      }),
    5,
    /./,
  ),
  bytes(
    'a weight reshaped to a negative size',
    () =>
      linear({
        node: [node('Reshape', ['w', 's'], ['v']), node('MatMul', ['x', 'v'], ['y'])],
        initializer: [weight('w', [8, 4]), ints('s', -1, -1)],
      }),
    5,
    /./,
  ),
  bytes('a weight of the wrong rank', () => linear({ initializer: [weight('w', [32])] }), 5, /./),
  bytes(
    'a weight that does not fit the input',
    () => linear({ initializer: [weight('w', [5, 4])] }),
    5,
    /./,
  ),
  bytes('a convolution in no groups', () => conv({ group: 0 }), 5, /./),
  bytes('a convolution in -1 groups', () => conv({ group: -1 }), 5, /./),
  bytes('a convolution in 3 groups of 4 channels', () => conv({ group: 3 }), 5, /./),
  bytes('a convolution with strides of 0', () => conv({ strides: [0, 0] }), 5, /./),
  bytes('a convolution with one pad', () => conv({ pads: [1] }), 5, /./),
  bytes('a kernel shape that lies', () => conv({ kernel_shape: [5, 5] }), 5, /./),
  bytes(
    'a Gemm without weight',
    () => linear({ node: [node('Gemm', ['x'], ['y'], {}, { name: 'multiply' })] }),
    5,
    /./,
  ),
  bytes(
    'a Constant without value',
    () => linear({ node: [node('Constant', [], ['w2']), node('MatMul', ['x', 'w2'], ['y'])] }),
    5,
    /./,
  ),
  bytes(
    'an If without branches',
    () =>
      linear({
        node: [node('If', ['x'], ['h'], {}, { name: 'branch' }), node('MatMul', ['h', 'w'], ['y'])],
      }),
    5,
    /./,
  ),
  bytes('no opset', () => linear({}, { opsetImport: [] }), 5, /opset/i),
  bytes(
    'an opset of the far future',
    () => linear({}, { opsetImport: [{ version: 9999 }] }),
    5,
    /opset|9999/i,
  ),
  bytes('a negative opset', () => linear({}, { opsetImport: [{ version: -3 }] }), 5, /opset|-3/i),
  bytes(
    'an unknown operator of the standard domain',
    () => linear({ node: [node('MatMul', ['x', 'w'], ['h']), node('Frobnicate', ['h'], ['y'])] }),
    5,
    /Frobnicate/,
  ),
  bytes('an input of 16 GiB', () => linear({ input: [value('x', [2 ** 29, 8])] }), 5, /"?x"?/),
  bytes(
    'an attribute of another type',
    () =>
      linear({
        node: [
          {
            ...node('Gemm', ['x', 'w'], ['y'], {}, { name: 'multiply' }),
            attribute: [{ name: 'transB', type: 3, s: new Uint8Array([49]) }],
          },
        ],
      }),
    5,
    /./,
  ),
  bytes(
    '200,000 nodes in reverse order',
    () => {
      const count = 200_000;
      const chain = Array.from({ length: count }, (_, i) =>
        node('Relu', [i === 0 ? 'h' : `v${i}`], [i === count - 1 ? 'y' : `v${i + 1}`]),
      );
      return linear({ node: [...chain.reverse(), node('MatMul', ['x', 'w'], ['h'])] });
    },
    0,
    /./,
  ),
  bytes(
    'a weight behind 50,000 Identity nodes, in reverse order',
    () => {
      const count = 50_000;
      const chain = Array.from({ length: count }, (_, i) =>
        node('Identity', [i === 0 ? 'w' : `v${i}`], [`v${i + 1}`]),
      );
      return linear({ node: [node('MatMul', ['x', `v${count}`], ['y']), ...chain.reverse()] });
    },
    0,
    /./,
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
    /./,
  ),
];

export const badModels: BadModel[] = [...files, ...tensors, ...externals, ...graphs];
export { model };
