import { modelError } from '../../errors.js';
import { readTensorBytes } from '../../onnx/index.js';
import type { LayerColumn, LayerReport } from '../method.js';
import type { LabelledModel } from './models.js';
import type { PairedTensor } from './pair/pair.js';
import { toFloats } from './values.js';

/** What a merge does to one tensor. */
export interface MergedTensor extends LayerReport {
  /** Of the values in the first model and in the one farthest from it, flattened. */
  cosine?: number;
}

export const columns: LayerColumn<MergedTensor>[] = [
  { header: 'cosine', value: ({ cosine }) => (cosine === undefined ? '' : cosine.toFixed(4)) },
];

/** A pair of tensors without a look at their values. */
export const reportOf = ({ name, node, shape }: PairedTensor): MergedTensor => ({
  name,
  op: node.opType ?? '',
  shape,
  status: 'changed',
});

export interface Distances {
  layers: MergedTensor[];
  /** Those that are not the same in all models. */
  differing: PairedTensor[];
  /** Of all their values, as one vector. */
  cosine: number;
}

/**
 * Compares the values of the models, tensor by tensor.
 * @throws {ResectError} exit 5 for a value that is not finite in one model and another in the other
 */
export async function measureDistances(
  models: readonly LabelledModel[],
  tensors: readonly PairedTensor[],
): Promise<Distances> {
  const layers: MergedTensor[] = [];
  const differing: PairedTensor[] = [];
  const totals = models.slice(1).map(() => ({ dot: 0, a: 0, b: 0 }));
  for (const tensor of tensors) {
    const report = reportOf(tensor);
    const [first, ...rest] = await Promise.all(
      models.map(({ model }, i) => readTensorBytes(model, tensor.tensors[i])),
    );
    if (rest.every((bytes) => Buffer.compare(first, bytes) === 0)) {
      layers.push({ ...report, status: 'unchanged', reason: 'the same in all models' });
      continue;
    }
    const own = valuesOf(first, tensor);
    const cosines = rest.map((bytes, i) => {
      const { dot, squares, finite } = products(own, valuesOf(bytes, tensor));
      if (!finite) throw notFinite(tensor, models[0], models[i + 1]);
      totals[i].dot += dot;
      totals[i].a += squares[0];
      totals[i].b += squares[1];
      return cosineOf({ dot, a: squares[0], b: squares[1] });
    });
    differing.push(tensor);
    layers.push({ ...report, cosine: Math.min(...cosines) });
  }
  return { layers, differing, cosine: Math.min(...totals.map(cosineOf)) };
}

const valuesOf = (raw: Uint8Array, { dtype, shape }: PairedTensor): Float32Array =>
  toFloats(
    raw,
    dtype,
    shape.reduce((a, b) => a * b, 1),
  );

const notFinite = ({ name }: PairedTensor, a: LabelledModel, b: LabelledModel) =>
  modelError('A weight is not a finite number.', {
    where: `tensor ${name} of ${a.label} or ${b.label}`,
    expected: 'finite values where the models differ',
    hint: 'Repair the model, or leave the tensor out with --exclude.',
  });

const cosineOf = ({ dot, a, b }: { dot: number; a: number; b: number }): number =>
  a === 0 || b === 0 ? 0 : dot / Math.sqrt(a * b);

function products(a: Float32Array, b: Float32Array) {
  let dot = 0;
  let squareA = 0;
  let squareB = 0;
  let finite = true;
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i] && !Number.isFinite(a[i] - b[i])) finite = false;
    // The same infinity in both, as in a mask, is not in the way.
    if (!Number.isFinite(a[i])) continue;
    dot += a[i] * b[i];
    squareA += a[i] * a[i];
    squareB += b[i] * b[i];
  }
  return { dot, squares: [squareA, squareB], finite };
}
