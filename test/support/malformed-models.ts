import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { TensorProto } from '../../src/onnx/index.js';
import { inRepository } from './cli.js';
import { type BadModel, badGraphs, bytes } from './malformed-graphs.js';
import { floats, ints, linear } from './protos.js';

export type { BadModel };

const healthy = () => readFileSync(inRepository('fixtures/resnet8/resnet8.onnx'));

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
  external('the model itself', 'model.onnx', 0, /written/, { entries: { offset: '0' } }),
];

export const badModels: BadModel[] = [...files, ...tensors, ...externals, ...badGraphs];
