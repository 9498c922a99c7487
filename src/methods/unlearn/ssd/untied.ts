import type { Floats } from '../../../autodiff/optimizer.js';
import type { Parameter } from '../../../graph/parameters.js';

/** Matrices of fewer elements are not compared. */
const worthComparing = 256;

/**
 * Pairs of matrices with the same values, or transposed: an embedding and the head that was tied to
 * it before the export. Only those are compared, element by element, whose sums agree.
 * @param values by name of the parameter
 */
export function untiedCopies(
  parameters: readonly Parameter[],
  values: ReadonlyMap<string, Floats>,
): [string, string][] {
  const alike = new Map<string, Parameter[]>();
  for (const parameter of parameters) {
    const own = values.get(parameter.name);
    const [rows, cols, ...more] = parameter.shape;
    if (!own || more.length > 0 || !(rows * cols >= worthComparing)) continue;
    const key = `${Math.min(rows, cols)} ${own.length} ${sumOfBits(own)}`;
    alike.set(key, [...(alike.get(key) ?? []), parameter]);
  }
  const pairs: [string, string][] = [];
  for (const group of alike.values()) {
    for (const [i, a] of group.entries()) {
      for (const b of group.slice(i + 1)) {
        const [x, y] = [values.get(a.name), values.get(b.name)];
        if (!x || !y) continue;
        const [rows, cols] = a.shape;
        const same = rows === b.shape[0] && equal(x, y);
        if (same || (rows === b.shape[1] && equalTransposed(x, y, rows, cols)))
          pairs.push([a.name, b.name]);
      }
    }
  }
  return pairs;
}

/** A sum that is the same in every order of the elements. */
function sumOfBits({ buffer, byteOffset, byteLength }: Floats): number {
  let sum = 0;
  for (const bits of new Uint32Array(buffer, byteOffset, byteLength / 4)) sum = (sum + bits) >>> 0;
  return sum;
}

function equal(x: Floats, y: Floats): boolean {
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
}

/** Whether x [rows, cols] is the transpose of y [cols, rows]. */
function equalTransposed(x: Floats, y: Floats, rows: number, cols: number): boolean {
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) if (x[r * cols + c] !== y[c * rows + r]) return false;
  return true;
}
