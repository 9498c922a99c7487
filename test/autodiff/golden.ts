import { readFileSync } from 'node:fs';
import type { TensorData } from '../../src/data/index.js';
import { parseNpyHeader } from '../../src/data/npy.js';
import { openNpz } from '../../src/data/npz.js';
import { inRepository } from '../support/cli.js';

const at = (path: string): string => inRepository(`fixtures/golden/autodiff/${path}`);

/** An entry of `cases.json`, which explains them. */
export interface GoldenCase {
  name: string;
  model: string;
  input: string;
  inputs: string;
  targets: string;
  gradients: string;
  loss: number;
  largestGradient: number;
}

const { cases } = JSON.parse(readFileSync(at('cases.json'), 'utf8')) as { cases: GoldenCase[] };
export const goldenCases = cases.map((c) => ({ ...c, model: at(c.model) }));

export const goldenCase = (name: string): GoldenCase => {
  const found = goldenCases.find((c) => c.name === name);
  if (!found) throw new Error(`no case ${name}`);
  return found;
};

function readNpy(path: string): TensorData {
  const file = readFileSync(at(path));
  const { dtype, dims, offset } = parseNpyHeader(file, path);
  const { buffer } = new Uint8Array(file.subarray(offset));
  const data = dtype === 'int64' ? new BigInt64Array(buffer) : new Float32Array(buffer);
  return { dtype, dims, data };
}

/** The batch of a case, with its labels. */
export const goldenBatch = ({ input, inputs, targets }: GoldenCase) => ({
  feeds: { [input]: readNpy(inputs) },
  target: readNpy(targets),
});

/** The gradients by torch, by initializer. */
export async function goldenGradients({ gradients }: GoldenCase): Promise<Map<string, number[]>> {
  const file = await openNpz(at(gradients));
  const found = new Map<string, number[]>();
  for (const name of file.names) {
    const column = await file.column(name);
    const values: number[] = [];
    for (let i = 0; i < column.length; i++) values.push(...toNumbers(await column.item(i)));
    found.set(name, values);
  }
  return found;
}

export const toNumbers = ({ data }: TensorData): number[] =>
  Array.from(data as ArrayLike<number>, Number);

type Vector = ArrayLike<number>;

/** The largest difference of two sets of gradients, relative to the largest gradient of the second. */
export function gradientError(
  got: ReadonlyMap<string, Vector>,
  expected: ReadonlyMap<string, Vector>,
): number {
  expect([...got.keys()].sort()).toEqual([...expected.keys()].sort());
  let [error, largest] = [0, 0];
  for (const [name, want] of expected) {
    const values = got.get(name) as Vector;
    expect(values.length).toBe(want.length);
    for (let i = 0; i < want.length; i++) {
      const difference = Math.abs(values[i] - want[i]);
      error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(error, difference);
      largest = Math.max(largest, Math.abs(want[i]));
    }
  }
  return error / largest;
}

/** A part of a tensor's first axis. */
export function rowsOf({ dtype, dims, data }: TensorData, from: number, to: number): TensorData {
  const size = data.length / dims[0];
  return {
    dtype,
    dims: [to - from, ...dims.slice(1)],
    data: data.slice(from * size, to * size),
  };
}
