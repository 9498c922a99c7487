import { readFileSync } from 'node:fs';
import { parseNpyHeader } from '../../../src/data/npy.js';
import type { InputStatistics } from '../../../src/methods/sparsify/statistics.js';

const folder = new URL('../../../fixtures/golden/dsnot/', import.meta.url);

export interface GoldenMask {
  id: string;
  index: number;
  nnz_pruned?: number;
  trace_index?: number;
  weights?: string;
  flags?: Partial<
    Record<
      'max_cycle_time' | 'update_threshold' | 'pow_of_var_regrowing' | 'require_same_sign',
      number
    >
  >;
}

interface CaseRecord {
  name: string;
  rows: number;
  cols: number;
  nsamples: number;
  seqlen: number;
  masks: GoldenMask[];
}

/** A layer of fixtures/golden/dsnot; `cases.json` there explains the files. */
export class GoldenCase {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly samples: number;
  readonly tokensPerSample: number;
  readonly masks: GoldenMask[];
  readonly w: Float32Array;

  constructor(record: CaseRecord) {
    this.name = record.name;
    this.rows = record.rows;
    this.cols = record.cols;
    this.samples = record.nsamples;
    this.tokensPerSample = record.seqlen;
    this.masks = record.masks;
    this.w = this.floats('W');
  }

  /** A float32 array of the case. */
  floats(array: string): Float32Array {
    const { bytes, dtype } = readNpy(`${this.name}/${array}.npy`);
    if (dtype !== 'float32') throw new Error(`${array} is ${dtype}`);
    return new Float32Array(bytes);
  }

  /** A row of `stats64.npy`, the statistics in float64. */
  exactStatistics(): Float64Array[] {
    const { bytes } = readNpy(`${this.name}/stats64.npy`);
    const all = new Float64Array(bytes);
    return [0, 1, 2, 3].map((row) => all.subarray(row * this.cols, (row + 1) * this.cols));
  }

  /** The statistics that the reference collected. */
  statistics(): InputStatistics {
    const { cols } = this;
    const all = this.floats('stats');
    const row = (index: number) => all.slice(index * cols, (index + 1) * cols);
    return {
      samples: this.samples,
      tokens: this.samples * this.tokensPerSample,
      scaler: row(0),
      sum: row(1),
      variance: row(3),
    };
  }

  /** A mask [rows, cols] with 1 = keep; the file has 1 = pruned. */
  mask(index: number): Uint8Array {
    const packed = new Uint8Array(readNpy(`${this.name}/masks.npy`).bytes);
    const first = (index * this.rows * this.cols) / 8;
    return Uint8Array.from(
      { length: this.rows * this.cols },
      (_, i) => 1 - ((packed[first + (i >> 3)] >> (i & 7)) & 1),
    );
  }

  /** [initial error, final error, swaps, stop code] of a row. */
  trace(index: number): (row: number) => number[] {
    const all = this.floats('trace');
    return (row) => [...all.subarray((index * this.rows + row) * 4).subarray(0, 4)];
  }
}

export const goldenCases: GoldenCase[] = (
  JSON.parse(readFileSync(new URL('cases.json', folder), 'utf8')) as { cases: CaseRecord[] }
).cases.map((record) => new GoldenCase(record));

function readNpy(path: string): { bytes: ArrayBuffer; dtype: string } {
  const file = readFileSync(new URL(path, folder));
  const { offset, dtype } = parseNpyHeader(file, path);
  return { bytes: new Uint8Array(file.subarray(offset)).buffer, dtype };
}
