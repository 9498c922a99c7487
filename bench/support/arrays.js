import { readFileSync, writeFileSync } from 'node:fs';

/** Uniform random numbers in [0, 1), the same on every run (a linear congruential generator). */
export function uniform(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Writes int64 values as .npy. */
export function writeInt64Npy(path, shape, values) {
  const dict = `{'descr': '<i8', 'fortran_order': False, 'shape': (${shape.join(', ')},), }`;
  const header = Buffer.from(`${dict.padEnd(128 - 10 - 1)}\n`, 'latin1');
  const magic = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length, 0]);
  writeFileSync(path, Buffer.concat([magic, header, new Uint8Array(values.buffer)]));
}

/** The values of a file that `writeInt64Npy` wrote. */
export const readInt64Npy = (path) =>
  new BigInt64Array(new Uint8Array(readFileSync(path)).buffer, 128);

const arrays = { '<f4': Float32Array, '<i8': BigInt64Array };

/** Dims and values of the bytes of a .npy file of float32 or int64. */
export function readNpy(bytes) {
  const length = bytes.readUInt16LE(8);
  const header = bytes.toString('latin1', 10, 10 + length);
  const Values = arrays[/'descr': '([^']+)'/.exec(header)[1]];
  const dims = /'shape': \(([^)]*)\)/
    .exec(header)[1]
    .split(',')
    .filter((d) => d.trim())
    .map(Number);
  return { dims, data: new Values(new Uint8Array(bytes.subarray(10 + length)).buffer) };
}
