import { readFileSync } from 'node:fs';
import { deflateRawSync, gzipSync } from 'node:zlib';
import type { ColumnFile } from '../../src/data/columns.js';
import { fortranToC } from '../../src/data/columns.js';
import { openIdx } from '../../src/data/idx.js';
import { openNpy } from '../../src/data/npy.js';
import { openNpz } from '../../src/data/npz.js';
import { expectBadData, fixture, idx, npy, plain, scratch, zip } from './helpers.js';

const { write } = scratch();
const f4 = (...values: number[]) => Float32Array.from(values);
const read = async (file: ColumnFile, name: string, i: number) =>
  plain(await (await file.column(name)).item(i));

describe('npy', () => {
  test('items are read along the first axis', async () => {
    const file = await openNpy(write('a.npy', npy('<f4', [2, 1, 3], f4(1, 2, 3, 4, 5, 6))));
    expect(await read(file, 'data', 1)).toEqual({
      dtype: 'float32',
      dims: [1, 3],
      data: [4, 5, 6],
    });
    expect((await file.column('data')).length).toBe(2);
  });

  test('format 2 and 3 have a longer length field', async () => {
    for (const version of [2, 3]) {
      const v1 = npy('<f4', [2], f4(7, 8));
      const bytes = Buffer.concat([
        v1.subarray(0, 8),
        v1.subarray(8, 10),
        Buffer.alloc(2),
        v1.subarray(10),
      ]);
      bytes[6] = version;
      const file = await openNpy(write('v.npy', bytes));
      expect(await read(file, 'data', 1)).toEqual({ dtype: 'float32', dims: [], data: [8] });
    }
  });

  test('what is not an array of numbers is refused', async () => {
    await expectBadData(openNpy(fixture('object.npy')), /pickled arrays are refused/);
    await expectBadData(openNpy(write('p.npy', Buffer.from('\x80\x04\x95', 'latin1'))), /pickled/);
    await expectBadData(openNpy(fixture('structured.npy')), /structured.*each field/);
    for (const descr of ['<c8', '<U5', '|S3', '<M8[ns]', '<f16', '|V4'])
      await expectBadData(
        openNpy(write('d.npy', npy(descr, [1], f4(0, 0, 0, 0)))),
        /numeric dtype/,
      );
    await expectBadData(openNpy(write('m.npy', 'PK')), /not a \.npy array/);
    await expectBadData(
      openNpy(write('h.npy', Buffer.from('\x93NUMPY\x01\0\x04\0{}  ', 'latin1'))),
      /malformed/,
    );
    await expectBadData(openNpy(write('s.npy', npy('<f4', [], f4(1)))), /no axis of examples/);
  });

  test('lengths are checked before anything is allocated', async () => {
    const huge = npy('<f4', [2 ** 32], f4(1, 2, 3));
    await expectBadData(openNpy(write('huge.npy', huge)), /shorter than its header promises/);
    const absurd = npy('<f4', [2 ** 40, 2 ** 40], f4(1));
    await expectBadData(openNpy(write('absurd.npy', absurd)), /impossible size/);
    const whole = npy('<f4', [4], f4(1, 2, 3, 4));
    await expectBadData(openNpy(write('cut.npy', whole.subarray(0, whole.length - 1))), /shorter/);
    await expectBadData(openNpy(write('head.npy', whole.subarray(0, 60))), /cut off/);
    await expectBadData(openNpy(write('seven.npy', whole.subarray(0, 7))), /cut off/);
    const version = Buffer.from(whole);
    version[6] = 9;
    await expectBadData(openNpy(write('version.npy', version)), /version/);
    await expectBadData(openNpy(write('empty.npy', '')), /not a \.npy array/);
  });
});

describe('npz', () => {
  test('every dtype', async () => {
    const file = await openNpz(fixture('dtypes.npz'));
    const dtypes = {
      b1: 'bool',
      i1: 'int8',
      u1: 'uint8',
      i2: 'int16',
      u2: 'uint16',
      i4: 'int32',
      u4: 'uint32',
      i8: 'int64',
      u8: 'uint64',
      f4: 'float32',
      f8: 'float64',
    };
    for (const [code, dtype] of Object.entries(dtypes))
      expect(await read(file, code, 2)).toEqual({
        dtype,
        dims: [2],
        data: code === 'b1' ? [0, 1] : [4, 5],
      });
    expect(await read(file, 'f2', 1)).toEqual({
      dtype: 'float16',
      dims: [2],
      data: [0x4000, 0x4200],
    });
    expect(file.names.length).toBe(12);
  });

  test('big-endian and Fortran order', async () => {
    const file = await openNpz(fixture('orders.npz'));
    for (const name of file.names) {
      const { dims, data } = await read(file, name, 2);
      const ints = [12, 13, 14, 15, 16, 17];
      const halves = [0x4a00, 0x4a80, 0x4b00, 0x4b80, 0x4c00, 0x4c40];
      expect([name, dims, data]).toEqual([name, [3, 2], name.endsWith('f2') ? halves : ints]);
    }
  });

  test('Fortran order in a plain file, rank 1 and items that are numbers', async () => {
    const file = await openNpy(write('f.npy', npy('<f4', [2, 3], f4(1, 4, 2, 5, 3, 6), true)));
    expect((await read(file, 'data', 0)).data).toEqual([1, 2, 3]);
    const line = await openNpy(write('l.npy', npy('<f4', [3], f4(1, 2, 3), true)));
    expect(Array.from(await (await line.column('data')).numbers())).toEqual([1, 2, 3]);
    expect(fortranToC(Uint8Array.of(), [0, 3], 1)).toEqual(Uint8Array.of());
  });

  test('stored, compressed and zip64 archives hold the same', async () => {
    for (const name of ['stored.npz', 'zip64.npz']) {
      const file = await openNpz(fixture(name));
      expect(await read(file, 'x', 3)).toEqual({ dtype: 'float32', dims: [3], data: [9, 10, 11] });
      expect(Array.from(await (await file.column('label')).numbers())).toEqual([2, 0, 1, 2]);
    }
    const zip64 = readFileSync(fixture('zip64.npz'));
    expect(zip64.includes('PK\x06\x06')).toBe(true);
  });

  test('damage is reported', async () => {
    await expectBadData((await openNpz(fixture('object.npz'))).column('x'), /pickled.*array x/s);
    const stored = readFileSync(fixture('stored.npz'));
    await expectBadData(openNpz(write('cut.npz', stored.subarray(0, 300))), /not a readable \.npz/);
    await expectBadData(openNpz(write('not.npz', 'hello')), /not a readable \.npz/);
    const broken = Buffer.from(readFileSync(fixture('zip64.npz')));
    broken.fill(0xff, 100, 140);
    const file = await openNpz(write('broken.npz', broken));
    await expectBadData((async () => (await file.column('x')).item(0))(), /damaged|malformed/);
  });

  test('a bomb is refused by what it promises, before it is inflated', async () => {
    const promise = (elements: number) => {
      const header = npy('<f4', [elements], f4());
      const deflated = deflateRawSync(Buffer.concat([header, Buffer.alloc(2 ** 17)]));
      return { size: header.length + 4 * elements, deflated };
    };
    const column = async (content: Buffer, size: number) =>
      (await openNpz(write('bomb.npz', zip('x.npy', content, size)))).column('x');

    const lie = promise(2 ** 29);
    await expectBadData(column(lie.deflated, lie.size), /more than the compressed data can hold/);
    await expectBadData(column(lie.deflated, 2 ** 20), /does not have the size/);
    // Deflate could hold this much in 3 MB, so the limit on what is inflated in memory has to stop it.
    const bomb = promise(3 * 2 ** 28);
    const padded = Buffer.concat([bomb.deflated, Buffer.alloc(3.2e6)]);
    await expectBadData(column(padded, bomb.size), /too large to inflate.*savez/);

    const less = promise(2 ** 18);
    const short = await column(Buffer.concat([less.deflated, Buffer.alloc(2000)]), less.size);
    await expectBadData(short.item(0), /damaged|too early/);
    const more = promise(2);
    const long = await column(more.deflated, more.size);
    await expectBadData(long.item(0), /damaged.*more bytes than promised/);
  });

  test('two arrays of one name, other files, encryption', async () => {
    const one = readFileSync(fixture('stored.npz')).toString('latin1');
    const twice = Buffer.from(one.replaceAll('label.npy', 'x.npy\0\0\0\0'), 'latin1');
    expect((await openNpz(write('other.npz', twice))).names).toEqual(['x']);
    const same = Buffer.from(one.replaceAll('label.npy', './../.npy'), 'latin1');
    await expectBadData(openNpz(write('dots.npz', same)), /not a readable/);
    const encrypted = zip('x.npy', deflateRawSync(npy('<f4', [1], f4(1))), 132, 1);
    await expectBadData((await openNpz(write('enc.npz', encrypted))).column('x'), /encrypted/);
  });
});

describe('idx', () => {
  const images = idx([2, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8]);

  test('images and labels, gzipped or not', async () => {
    const labels = write('labels.gz', gzipSync(idx([2], [7, 9])));
    for (const path of [write('images', images), write('images.gz', gzipSync(images))]) {
      const file = await openIdx(path, labels);
      expect(await read(file, 'data', 1)).toEqual({
        dtype: 'uint8',
        dims: [2, 2],
        data: [5, 6, 7, 8],
      });
      expect(Array.from(await (await file.column('label')).numbers())).toEqual([7, 9]);
    }
  });

  test('numbers are big-endian', async () => {
    const bytes = Buffer.concat([Buffer.from([0, 0, 0x0d, 1, 0, 0, 0, 2]), Buffer.alloc(8)]);
    bytes.writeFloatBE(-1.5, 12);
    const file = await openIdx(write('floats', bytes));
    expect(await read(file, 'data', 1)).toEqual({ dtype: 'float32', dims: [], data: [-1.5] });
  });

  test('damage is reported', async () => {
    await expectBadData(
      openIdx(write('magic', Buffer.from([1, 0, 8, 1, 0, 0, 0, 0]))),
      /not an IDX/,
    );
    await expectBadData(
      openIdx(write('type', Buffer.from([0, 0, 10, 1, 0, 0, 0, 0]))),
      /not an IDX/,
    );
    await expectBadData(openIdx(write('rank', Buffer.from([0, 0, 8, 3, 0, 0]))), /cut off/);
    await expectBadData(openIdx(write('short', images.subarray(0, 20))), /shorter than/);
    const lying = Buffer.from(images);
    lying.writeUInt32BE(2 ** 31, 4);
    await expectBadData(openIdx(write('lying.gz', gzipSync(lying))), /more than the compressed/);
    const cut = gzipSync(idx([200], [...Array(200).keys()]));
    await expectBadData(openIdx(write('cut.gz', cut.subarray(0, 100))), /damaged/);
    const missing = await openIdx(write('missing.gz', gzipSync(images.subarray(0, 20))));
    await expectBadData(read(missing, 'data', 0), /ends too early/);
  });
});
