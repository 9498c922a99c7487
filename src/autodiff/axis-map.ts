import { product, reshape } from './emit.js';
import type { Tape } from './tape.js';

/** A linear map along one axis: y[i] = Σ_j values[i * columns + j] x[j]. */
export interface AxisMap {
  rows: number;
  columns: number;
  /** `[rows, columns]`. */
  values: Float64Array;
}

/**
 * The gradient of a map along `axis`: `g [...dims]`, whose axis has `map.rows` cells, times the map's
 * transpose.
 * @param like a forward value of the same element type
 */
export function pullAxis(
  t: Tape,
  g: string,
  dims: readonly number[],
  axis: number,
  map: AxisMap,
  like: string,
): string {
  const { rows, columns } = map;
  if (axis === dims.length - 1)
    return t.emit('MatMul', [g, t.floats(map.values, [rows, columns], like)]);
  const transposed = t.floats(transpose(map), [columns, rows], like);
  const last = dims.slice(axis + 1);
  if (last.length === 1) return t.emit('MatMul', [transposed, g]);
  const flat = reshape(t, g, [...dims.slice(0, axis), rows, product(last)]);
  return reshape(t, t.emit('MatMul', [transposed, flat]), [
    ...dims.slice(0, axis),
    columns,
    ...last,
  ]);
}

function transpose({ rows, columns, values }: AxisMap): Float64Array {
  const result = new Float64Array(values.length);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) result[j * rows + i] = values[i * columns + j];
  return result;
}
