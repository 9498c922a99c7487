import type { TensorData } from '../../../data/index.js';

/** Vectors of one length, [count, width], row-major. */
export interface Rows {
  values: Float32Array;
  width: number;
}

export const countOf = ({ values, width }: Rows): number => values.length / width;

/** The rows at these positions. */
export function pick({ values, width }: Rows, at: readonly number[]): Rows {
  const picked = new Float32Array(at.length * width);
  for (const [k, i] of at.entries())
    picked.set(values.subarray(i * width, (i + 1) * width), k * width);
  return { values: picked, width };
}

/** Rows of numbers that are drawn one by one. */
export const drawRows = (count: number, width: number, draw: () => number): Rows => ({
  values: Float32Array.from({ length: count * width }, draw),
  width,
});

export const asTensor = (rows: Rows): TensorData => ({
  dtype: 'float32',
  dims: [countOf(rows), rows.width],
  data: rows.values,
});
