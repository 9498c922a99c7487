import { readFileSync } from 'node:fs';
import { parseNpyHeader } from '../../../../src/data/npy.js';

const folder = new URL('../../../../fixtures/golden/udfc/', import.meta.url);

interface CaseRecord {
  name: string;
  op: string;
  inputs: Record<string, string>;
  params: Record<string, number | boolean | string>;
  outputs: Record<string, string>;
  atol: number;
  rtol: number;
}

/** An array of a case; indices (int64) become float64 too. */
export interface GoldenArray {
  dims: number[];
  values: Float64Array;
}

/** A case of fixtures/golden/udfc/cases.json. */
export class GoldenCase {
  constructor(readonly record: CaseRecord) {}

  input = (name: string): Float64Array => this.array(name).values;

  array(name: string): GoldenArray {
    return readArray(this.record.inputs[name]);
  }

  indices = (name: string): Uint32Array => Uint32Array.from(this.input(name));

  number(name: string): number {
    const value = this.record.params[name];
    if (typeof value !== 'number') throw new Error(`${this.record.name} has no number ${name}`);
    return value;
  }

  /** Within the tolerance of the case, |got - want| ≤ atol + rtol·|want|, everywhere. */
  expectOutput(name: string, got: ArrayLike<number>): void {
    const { values: want } = readArray(this.record.outputs[name]);
    const { atol, rtol } = this.record;
    expect(got.length).toBe(want.length);
    const off = Array.from(want, (value, k) => ({ k, want: value, got: got[k] })).filter(
      (at) => !(Math.abs(at.got - at.want) <= atol + rtol * Math.abs(at.want)),
    );
    expect(off).toEqual([]);
  }
}

const { cases } = JSON.parse(readFileSync(new URL('cases.json', folder), 'utf8')) as {
  cases: CaseRecord[];
};

/** The cases of an operation; there must be some. */
export function goldenCases(op: string): GoldenCase[] {
  const found = cases.filter((record) => record.op === op);
  if (found.length === 0) throw new Error(`no golden case of ${op}`);
  return found.map((record) => new GoldenCase(record));
}

function readArray(file: string): GoldenArray {
  const bytes = readFileSync(new URL(file, folder));
  const { dtype, dims, offset, fortran } = parseNpyHeader(bytes, file);
  if (fortran) throw new Error(`${file} is in Fortran order`);
  const buffer = bytes.buffer.slice(bytes.byteOffset + offset, bytes.byteOffset + bytes.length);
  if (dtype === 'int64') {
    return { dims, values: Float64Array.from(new BigInt64Array(buffer), Number) };
  }
  if (dtype !== 'float64') throw new Error(`${file} is ${dtype}`);
  return { dims, values: new Float64Array(buffer) };
}

/** The operations that there are cases of. */
export const goldenOps = (): string[] => [...new Set(cases.map(({ op }) => op))];
