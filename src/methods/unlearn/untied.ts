import type { Parameter } from '../../graph/parameters.js';
import { type Model, readTensorFloat32 } from '../../onnx/index.js';

/** Matrices of fewer elements are not compared. */
const worthComparing = 256;

/**
 * Pairs of matrices with the same values, or transposed: an embedding and the head that was tied to
 * it before the export. Read two at a time, and only those whose shapes allow it.
 */
export async function untiedCopies(
  model: Model,
  parameters: readonly Parameter[],
): Promise<[string, string][]> {
  const matrices = parameters.filter(
    ({ shape }) => shape.length === 2 && shape[0] * shape[1] >= worthComparing,
  );
  const pairs: [string, string][] = [];
  for (const [i, a] of matrices.entries()) {
    for (const b of matrices.slice(i + 1)) {
      const same = a.shape.join() === b.shape.join();
      const turned = a.shape.join() === [...b.shape].reverse().join();
      if (!same && !turned) continue;
      const [x, y] = [
        await readTensorFloat32(model, a.tensor),
        await readTensorFloat32(model, b.tensor),
      ];
      if ((same && equal(x, y)) || (turned && equalTransposed(x, y, a.shape[0], a.shape[1])))
        pairs.push([a.name, b.name]);
    }
  }
  return pairs;
}

function equal(x: Float32Array, y: Float32Array): boolean {
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
}

/** Whether x [rows, cols] is the transpose of y [cols, rows]. */
function equalTransposed(x: Float32Array, y: Float32Array, rows: number, cols: number): boolean {
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) if (x[r * cols + c] !== y[c * rows + r]) return false;
  return true;
}
