import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { openDataset } from '../../src/data/index.js';
import { ResectError } from '../../src/errors.js';
import { fixture, idx, npy, scratch, spec } from './helpers.js';

const { write } = scratch();
const x = [spec('x', 'float32', ['n', 3])];
const table = [spec('x', 'float32', ['n', 2])];
const samples = {
  'a.npy': { bytes: npy('<f4', [4, 3], new Float32Array(12)), specs: x },
  'a.npz': { bytes: readFileSync(fixture('stored.npz')), specs: x },
  'b.npz': { bytes: readFileSync(fixture('zip64.npz')), specs: x },
  'a.gz': { bytes: gzipSync(idx([4, 1, 3], Array(12).fill(7))), specs: x },
  'a.parquet': { bytes: readFileSync(fixture('snappy.parquet')), specs: table },
  'b.parquet': { bytes: readFileSync(fixture('zstd.parquet')), specs: table },
};

/** Bytes changed at some places, and perhaps cut. */
const damage = fc.record({
  edits: fc.array(fc.tuple(fc.nat(9999), fc.nat(255)), { minLength: 1, maxLength: 6 }),
  keep: fc.double({ min: 0, max: 1, noNaN: true }),
  cut: fc.boolean(),
});

test.each(Object.entries(samples))(
  '%s: damage is read or reported, never worse',
  async (name, { bytes, specs }) => {
    await fc.assert(
      fc.asyncProperty(damage, async ({ edits, keep, cut }) => {
        const copy = Buffer.from(cut ? bytes.subarray(0, Math.floor(keep * bytes.length)) : bytes);
        for (const [at, value] of edits) if (copy.length > 0) copy[at % copy.length] = value;
        try {
          const dataset = await openDataset(write(name, copy), specs);
          for (let i = 0; i < Math.min(dataset.length, 5); i++) await dataset.example(i);
        } catch (error) {
          if (!(error instanceof ResectError)) throw error;
        }
      }),
      { numRuns: Number(process.env.RUNS ?? 150) },
    );
  },
);
