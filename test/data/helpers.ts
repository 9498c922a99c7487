import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Dataset, InputSpec, TensorData } from '../../src/data/index.js';
import { ExitCode, ResectError } from '../../src/errors.js';

export const fixture = (name: string) => join('fixtures', 'data', name);

export const spec = (name: string, dtype: string, dims: (number | string)[]): InputSpec => ({
  name,
  dtype,
  dims,
});

/** A folder that is removed after the tests of the file. */
export function scratch() {
  const folder = mkdtempSync(join(tmpdir(), 'resect-data-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return {
    folder,
    write(name: string, content: string | Uint8Array) {
      const path = join(folder, name);
      writeFileSync(path, content);
      return path;
    },
  };
}

/** A `.npy` file as numpy writes it; `data` in whatever order and endianness the header says. */
export function npy(
  descr: string,
  shape: number[],
  data: ArrayBufferView,
  fortran = false,
): Buffer {
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const text = `{'descr': '${descr}', 'fortran_order': ${fortran ? 'True' : 'False'}, 'shape': ${tuple}, }`;
  const header = `${text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11)}\n`;
  const head = Buffer.from(`\x93NUMPY\x01\x00\0\0${header}`, 'latin1');
  head.writeUInt16LE(header.length, 8);
  return Buffer.concat([head, Buffer.from(data.buffer, data.byteOffset, data.byteLength)]);
}

/** A zip archive with one deflated entry, which states `size` bytes after inflation. */
export function zip(name: string, deflated: Buffer, size: number, flags = 0): Buffer {
  const local = Buffer.alloc(30 + name.length);
  local.write('PK\x03\x04', 0, 'latin1');
  local.writeUInt16LE(name.length, 26);
  local.write(name, 30, 'latin1');
  const central = Buffer.alloc(46 + name.length);
  central.write('PK\x01\x02', 0, 'latin1');
  central.writeUInt16LE(flags, 8);
  central.writeUInt16LE(8, 10);
  central.writeUInt32LE(deflated.length, 20);
  central.writeUInt32LE(size, 24);
  central.writeUInt16LE(name.length, 28);
  central.write(name, 46, 'latin1');
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(1, 8);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(local.length + deflated.length, 16);
  return Buffer.concat([local, deflated, central, end]);
}

/** An IDX file of bytes. */
export const idx = (dims: number[], data: number[]): Buffer => {
  const head = Buffer.alloc(4 + 4 * dims.length);
  head.set([0, 0, 8, dims.length]);
  for (const [axis, dim] of dims.entries()) head.writeUInt32BE(dim, 4 + 4 * axis);
  return Buffer.concat([head, Buffer.from(data)]);
};

export const plain = ({ dtype, dims, data }: TensorData) => ({
  dtype,
  dims,
  data: Array.from(data, Number),
});

export const all = async (dataset: Dataset) =>
  Promise.all(Array.from({ length: dataset.length }, (_, i) => dataset.example(i)));

/** The error a promise is rejected with, which must be one the user can act on. */
export async function errorOf(promise: Promise<unknown>): Promise<ResectError> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  );
  if (!(error instanceof ResectError)) throw error ?? new Error('nothing was thrown');
  return error;
}

export async function expectBadData(promise: Promise<unknown>, message: RegExp) {
  const error = await errorOf(promise);
  expect(`${error.message}; ${JSON.stringify(error.detail)}`).toMatch(message);
  expect(error.exitCode).toBe(ExitCode.badData);
}
