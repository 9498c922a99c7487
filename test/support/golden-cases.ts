import { readFileSync } from 'node:fs';
import { parseNpyHeader } from '../../src/data/npy.js';
import { inRepository } from './cli.js';

interface CaseRecord {
  name: string;
  op: string;
  inputs: Record<string, string>;
  params: Record<string, number | boolean | string>;
  outputs: Record<string, string>;
  atol: number;
  rtol: number;
}

/** An array of the golden data, as float64 whatever it is stored as. */
export interface GoldenArray {
  dims: number[];
  values: Float64Array;
}

/** A case of a folder's cases.json. */
export class GoldenCase {
  constructor(
    readonly folder: string,
    readonly record: CaseRecord,
  ) {}

  input = (name: string): Float64Array => this.array(name).values;

  array(name: string): GoldenArray {
    return readGolden(this.folder, this.record.inputs[name]);
  }

  indices = (name: string): Uint32Array => Uint32Array.from(this.input(name));

  number(name: string): number {
    const value = this.record.params[name];
    if (typeof value !== 'number') throw new Error(`${this.record.name} has no number ${name}`);
    return value;
  }

  /**
   * Within the tolerance of the case, |got - want| ≤ atol + rtol·|want|, everywhere.
   * @param rounding further tolerance, relative to the largest value, for results in float32
   */
  expectOutput(name: string, got: ArrayLike<number>, rounding = 0): void {
    const { values: want } = readGolden(this.folder, this.record.outputs[name]);
    const { rtol } = this.record;
    const largest = want.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const atol = this.record.atol + rounding * largest;
    expect(got.length).toBe(want.length);
    const off = Array.from(want, (value, k) => ({ k, want: value, got: got[k] })).filter(
      (at) => !(Math.abs(at.got - at.want) <= atol + rtol * Math.abs(at.want)),
    );
    expect(off).toEqual([]);
  }
}

/** The golden data of a method: a folder in fixtures/golden with a cases.json. */
export function goldenFolder(name: string) {
  const path = (file: string) => inRepository(`fixtures/golden/${name}/${file}`);
  const { cases } = JSON.parse(readFileSync(path('cases.json'), 'utf8')) as {
    cases: CaseRecord[];
  };
  return {
    path,
    read: (file: string): GoldenArray => readGolden(name, file),
    /** The cases of an operation; there must be some. */
    cases(op: string): GoldenCase[] {
      const found = cases.filter((record) => record.op === op);
      if (found.length === 0) throw new Error(`no golden case of ${op}`);
      return found.map((record) => new GoldenCase(name, record));
    },
    /** The operations that there are cases of. */
    ops: (): string[] => [...new Set(cases.map(({ op }) => op))],
  };
}

function readGolden(folder: string, file: string): GoldenArray {
  const bytes = readFileSync(inRepository(`fixtures/golden/${folder}/${file}`));
  const { dtype, dims, offset, fortran } = parseNpyHeader(bytes, file);
  if (fortran) throw new Error(`${file} is in Fortran order`);
  const buffer = bytes.buffer.slice(bytes.byteOffset + offset, bytes.byteOffset + bytes.length);
  if (dtype === 'int64')
    return { dims, values: Float64Array.from(new BigInt64Array(buffer), Number) };
  if (dtype === 'float32') return { dims, values: Float64Array.from(new Float32Array(buffer)) };
  if (dtype !== 'float64') throw new Error(`${file} is ${dtype}`);
  return { dims, values: new Float64Array(buffer) };
}
