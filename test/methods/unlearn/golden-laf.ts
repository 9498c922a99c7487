import { readFileSync } from 'node:fs';
import { parseNpyHeader } from '../../../src/data/npy.js';
import { inRepository } from '../../support/cli.js';

/** A file of fixtures/golden/laf; `cases.json` there explains them. */
export const lafPath = (file: string): string => inRepository(`fixtures/golden/laf/${file}`);

interface Order {
  name: string;
  shape: number[];
  offset: number;
}

/** A run of the authors' code: its settings and losses, and the file with the parameters after it. */
interface Run {
  lr_ue: number;
  lr_ra: number;
  temperature: number;
  mean_L_UE: number;
  mean_L_RA: number;
  params_after: string;
}

interface Golden {
  model: { param_order: Order[]; embedding_tensor: string };
  vae: { param_order: Order[] };
  A_vae_step: { recon_loss: number; kld: number; loss: number };
  A2_vae_5_steps: { losses: number[] };
  B_extractor_step: { L_UE: number; params_without_gradient: string[] };
  C_alignment_step: { L_RA: number };
  C2_alignment: { L_RA: number; L_RA_at_temperature_5: number };
  D_1ep: Run;
  D_1ep_scaled_lr: Run;
  R_repair_1ep: { lr: number; changed: string[] };
  E_full_runs_small: Record<
    'target_band_scaled_lr',
    {
      lr_ue: number;
      lr_ra: number;
      epochs: number;
      forget_train_max: number;
      remain_train_min: number;
      test_remain_class_min: number;
      test_forget_class_max: number;
    }
  > & {
    target_band_ref_lr: { forget_train: [number, number]; remain_train_min: number };
  };
}

export const golden = JSON.parse(readFileSync(lafPath('cases.json'), 'utf8')) as Golden;

/** An array of floats or int32, with its dims. */
export function read(file: string): { dims: number[]; values: Float32Array } {
  const bytes = readFileSync(lafPath(file));
  const { dtype, dims, offset } = parseNpyHeader(bytes, file);
  const buffer = bytes.buffer.slice(bytes.byteOffset + offset, bytes.byteOffset + bytes.length);
  const typed = dtype === 'int32' ? new Int32Array(buffer) : new Float32Array(buffer);
  return { dims, values: Float32Array.from(typed) };
}

export const values = (file: string): Float32Array => read(file).values;

/** Rows of a matrix, row-major, for the methods. */
export const rows = (file: string) => {
  const { dims, values } = read(file);
  return { values, width: dims[dims.length - 1] };
};

/** Parts of a flat vector, by the names in `order`. */
export function named(flat: Float32Array, order: readonly Order[]): Map<string, Float32Array> {
  return new Map(
    order.map(({ name, shape, offset }) => [
      name,
      flat.slice(offset, offset + shape.reduce((a, b) => a * b, 1)),
    ]),
  );
}

/** Named parts as a flat vector; zeros where a part is missing. */
export function flat(
  parts: ReadonlyMap<string, ArrayLike<number>>,
  order: readonly Order[],
): Float32Array {
  const lengths = order.map(({ shape }) => shape.reduce((a, b) => a * b, 1));
  const all = new Float32Array(lengths.reduce((a, b) => a + b, 0));
  for (const { name, offset } of order) {
    const part = parts.get(name);
    if (part) all.set(part, offset);
  }
  return all;
}

/** Batch k of the remaining data or of the forget set: rows of the training images. */
export function batchRows(side: 'remain' | 'unlearn', k: number): number[] {
  const { dims, values } = read(`idx_${side}_batches.npy`);
  return Array.from(values.subarray(k * dims[1], (k + 1) * dims[1]));
}

/** Noise k, [32, 4]. */
export function noise(k: number): { values: Float32Array; width: number } {
  const { dims, values } = read('noise.npy');
  const size = dims[1] * dims[2];
  return { values: values.slice(k * size, (k + 1) * size), width: dims[2] };
}

/** ‖got - want‖ / ‖want‖ */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let [error, norm] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    error += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2;
  }
  return Math.sqrt(error / norm);
}
