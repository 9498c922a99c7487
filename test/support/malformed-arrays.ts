import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { constants, deflateRawSync, gzipSync } from 'node:zlib';
import { idx, zip } from '../data/helpers.js';
import { inRepository } from './cli.js';
import { npy, npz } from './npz.js';

/** Data that is wrong for a model. */
export interface BadData {
  name: string;
  /** Writes into a folder; returns the flags that name the data. */
  make: (folder: string) => string[];
  /** Folder of the fixture whose model it is given to. */
  model: 'resnet8' | 'gpt-moby' | 'mlp-regression';
  code: number;
  /** What the message must say, be it the file, the array, the example or the line. */
  says: RegExp;
}

/** A single file of data. */
export const file = (
  name: string,
  path: string,
  content: () => string | Uint8Array,
  says: RegExp,
  { code = 6, model = 'resnet8' as BadData['model'], flags = [] as string[] } = {},
): BadData => ({
  name: `${path}: ${name}`,
  model,
  code,
  says,
  make(folder) {
    writeFileSync(join(folder, path), content());
    return ['--data', join(folder, path), ...flags];
  },
});

const images = (count: number, value = 0.5, dims = [1, 28, 28]) => {
  const shape = [count, ...dims];
  const elements = shape.reduce((a, b) => a * b, 1);
  return npy('<f4', shape, new Float32Array(elements).fill(value));
};
const labels = (...values: number[]) =>
  npy('<i8', [values.length], BigInt64Array.from(values, BigInt));

/** A `.npy` header that may say anything, before `content`. */
function header(text: string, content = new Uint8Array()): Buffer {
  const head = Buffer.alloc(10);
  head.write('\x93NUMPY\x01\x00', 0, 'latin1');
  head.writeUInt16LE(text.length, 8);
  return Buffer.concat([head, Buffer.from(text, 'latin1'), content]);
}

const describe = (descr: string, shape: string) =>
  `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }\n`;

const arrays: BadData[] = [
  file('empty', 'data.npz', () => '', /data\.npz/),
  file('text', 'data.npz', () => 'not an archive\n'.repeat(9), /data\.npz/),
  file(
    'cut in half',
    'data.npz',
    () => npz({ image: images(2), label: labels(1, 2) }).subarray(0, 3000),
    /data\.npz/,
  ),
  file(
    'pickled objects',
    'data.npz',
    () => readFileSync(inRepository('fixtures/data/object.npz')),
    /pickle|object/i,
  ),
  file(
    'a promise of 16 GiB',
    'data.npz',
    () => npz({ image: header(describe('<f4', '(5478274, 1, 28, 28)')), label: labels(0) }),
    /data\.npz, array image/,
  ),
  file(
    'a bomb of 3 GiB',
    'data.npz',
    () => {
      const count = 4_100_000;
      const start = npy('|u1', [count, 1, 28, 28], new Uint8Array(65536));
      const begun = deflateRawSync(start, { finishFlush: constants.Z_SYNC_FLUSH });
      return zip(
        'image.npy',
        Buffer.concat([begun, Buffer.alloc(2 ** 22)]),
        start.length - 65536 + count * 784,
      );
    },
    /too large[\s\S]*data\.npz, array image/,
  ),
  file(
    'a zip entry that overlaps the directory',
    'data.npz',
    () => {
      const bytes = npz({ image: images(1) });
      bytes.writeUInt32LE(0xfffffff0, bytes.indexOf('PK\x01\x02') + 20);
      return bytes;
    },
    /data\.npz/,
  ),
  file('no array for the input', 'data.npz', () => npz({ a: images(2), b: images(2) }), /image/),
  file('no examples', 'data.npz', () => npz({ image: images(0), label: labels() }), /no examples/),
  file(
    'two labels for three images',
    'data.npz',
    () => npz({ image: images(3), label: labels(1, 2) }),
    /label/,
  ),
  file(
    'a label of 10 in 10 classes',
    'data.npz',
    () => npz({ image: images(3), label: labels(0, 10, 2) }),
    /data\.npz[\s\S]*10/,
  ),
  file(
    'a negative label',
    'data.npz',
    () => npz({ image: images(3), label: labels(0, -1, 2) }),
    /label[\s\S]*-1/,
    { flags: ['--task', 'classification'] },
  ),
  file(
    'a label of 1.5',
    'data.npz',
    () => npz({ image: images(2), label: npy('<f4', [2], Float32Array.of(1, 1.5)) }),
    /label[\s\S]*1\.5/,
    { flags: ['--task', 'classification'] },
  ),
  file(
    'a label that is not a number',
    'data.npz',
    () => npz({ image: images(2), label: npy('<f4', [2], Float32Array.of(1, Number.NaN)) }),
    /label[\s\S]*NaN/,
  ),
  file(
    'images that are not numbers',
    'data.npz',
    () => npz({ image: images(2, Number.NaN), label: labels(1, 2) }),
    /image[\s\S]*NaN|NaN[\s\S]*image/,
  ),
  file(
    'infinite images',
    'data.npz',
    () => npz({ image: images(2, Number.POSITIVE_INFINITY), label: labels(1, 2) }),
    /image[\s\S]*infini|infini[\s\S]*image/i,
  ),
  file(
    'images of 27 x 27',
    'data.npz',
    () => npz({ image: images(2, 0.5, [1, 27, 27]), label: labels(1, 2) }),
    /27/,
  ),
  file(
    'images of three channels',
    'data.npz',
    () => npz({ image: images(2, 0.5, [3, 28, 28]), label: labels(1, 2) }),
    /\[3, 28, 28\]/,
  ),
  file(
    'flat images of the wrong length',
    'data.npz',
    () => npz({ image: images(2, 0.5, [783]), label: labels(1, 2) }),
    /783/,
  ),
  file(
    'texts as images',
    'data.npz',
    () => npz({ image: header(describe('<U8', '(2,)'), new Uint8Array(64)), label: labels(1, 2) }),
    /U8/,
  ),
  file(
    'dates as images',
    'data.npz',
    () =>
      npz({ image: header(describe('<M8[s]', '(2,)'), new Uint8Array(16)), label: labels(1, 2) }),
    /M8/,
  ),
  file('cut off', 'data.npy', () => images(2).subarray(0, 500), /data\.npy/),
  file(
    'pickled objects',
    'data.npy',
    () => readFileSync(inRepository('fixtures/data/object.npy')),
    /pickle|object/i,
  ),
  file(
    'a promise of 16 GiB',
    'data.npy',
    () => header(describe('<f4', '(5478274, 1, 28, 28)')),
    /data\.npy/,
  ),
  file(
    'a negative shape',
    'data.npy',
    () => header(describe('<f4', '(-2, 1, 28, 28)')),
    /data\.npy/,
  ),
  file(
    'a shape beyond all numbers',
    'data.npy',
    () => header(describe('<f4', '(99999999999999999999, 28)')),
    /data\.npy/,
  ),
  file(
    'zero times infinity',
    'data.npy',
    () => header(describe('<f4', '(9007199254740991, 0)')),
    /data\.npy/,
  ),
  file(
    'code for a header',
    'data.npy',
    () => header("__import__('os').system('true')\n"),
    /data\.npy/,
  ),
  file(
    'a header without end',
    'data.npy',
    () => header(`{'descr': '${'<'.repeat(60000)}`),
    /data\.npy/,
  ),
  file('a single number', 'data.npy', () => npy('<f4', [], Float32Array.of(1)), /data\.npy/),
];

const idxFiles: BadData[] = [
  file('empty', 'data.idx', () => '', /data\.idx/),
  file('cut off', 'data.idx', () => idx([2, 28, 28], new Array(100).fill(7)), /data\.idx/),
  file('a promise of 16 GiB', 'data.idx', () => idx([21913098, 28, 28], [1]), /data\.idx/),
  file('an unknown type', 'data.idx', () => Uint8Array.of(0, 0, 7, 1, 0, 0, 0, 1, 1), /data\.idx/),
  file(
    'damaged gzip',
    'data.gz',
    () => gzipSync(idx([2, 28, 28], new Array(1568).fill(7))).fill(0, 12, 20),
    /data\.gz/,
  ),
  file(
    'a gzipped promise of 1 GiB',
    'data.gz',
    () => gzipSync(idx([1369568, 28, 28], [1])),
    /data\.gz/,
  ),
  {
    name: 'fewer labels than images',
    model: 'resnet8',
    code: 6,
    says: /labels/,
    make(folder) {
      writeFileSync(join(folder, 'images'), idx([3, 28, 28], new Array(3 * 784).fill(1)));
      writeFileSync(join(folder, 'labels'), idx([2], [1, 2]));
      return ['--data', `${join(folder, 'images')},${join(folder, 'labels')}`];
    },
  },
];

/** Arrays that are damaged, lie, or do not fit. */
export const badArrays: BadData[] = [...arrays, ...idxFiles];
