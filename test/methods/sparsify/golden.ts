import { readFileSync } from 'node:fs';
import { parseNpyHeader } from '../../../src/data/npy.js';
import type { InputStatistics } from '../../../src/methods/calibration/statistics.js';

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

/** What refinement did to each row. */
export type GoldenTrace = Record<'initialError' | 'finalError' | 'swaps' | 'stop', Float32Array>;

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
  #packedMasks: Uint8Array | undefined;

  constructor(record: CaseRecord) {
    this.name = record.name;
    this.rows = record.rows;
    this.cols = record.cols;
    this.samples = record.nsamples;
    this.tokensPerSample = record.seqlen;
    this.masks = record.masks;
    this.w = this.floats('W');
  }

  /** A float32 array of the case, row-major. */
  floats(array: string): Float32Array {
    const { bytes, dtype, fortran, dims } = readNpy(`${this.name}/${array}.npy`);
    if (dtype !== 'float32') throw new Error(`${array} is ${dtype}`);
    const values = new Float32Array(bytes);
    if (!fortran) return values;
    const [rows, cols] = dims;
    return values.map((_, i) => values[(i % cols) * rows + Math.floor(i / cols)]);
  }

  /** `stats64.npy`: scaler, sum, mean and variance in float64. */
  exactStatistics(): Float64Array[] {
    const { bytes } = readNpy(`${this.name}/stats64.npy`);
    const all = new Float64Array(bytes);
    return [0, 1, 2, 3].map((row) => all.subarray(row * this.cols, (row + 1) * this.cols));
  }

  /** The statistics that the reference collected, in float32. */
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
    this.#packedMasks ??= new Uint8Array(readNpy(`${this.name}/masks.npy`).bytes);
    const mask = new Uint8Array(this.rows * this.cols);
    const first = (index * mask.length) / 8;
    for (let i = 0; i < mask.length; i++) {
      mask[i] = 1 - ((this.#packedMasks[first + (i >> 3)] >> (i & 7)) & 1);
    }
    return mask;
  }

  trace(index: number): GoldenTrace {
    const all = this.floats('trace').subarray(index * this.rows * 4, (index + 1) * this.rows * 4);
    const field = (offset: number) => all.filter((_, i) => i % 4 === offset);
    return { initialError: field(0), finalError: field(1), swaps: field(2), stop: field(3) };
  }
}

export const goldenCases: GoldenCase[] = (
  JSON.parse(readFileSync(new URL('cases.json', folder), 'utf8')) as { cases: CaseRecord[] }
).cases.map((record) => new GoldenCase(record));

function readNpy(path: string) {
  const file = readFileSync(new URL(path, folder));
  const header = parseNpyHeader(file, path);
  return { ...header, bytes: new Uint8Array(file.subarray(header.offset)).buffer };
}
