import { readFileSync } from 'node:fs';
import { parseNpyHeader } from '../../../src/data/npy.js';
import { openNpz } from '../../../src/data/npz.js';
import { inRepository } from '../../support/cli.js';

/** A file of fixtures/golden/ssd; `cases.json` there explains them. */
export const goldenPath = (path: string): string => inRepository(`fixtures/golden/ssd/${path}`);

type Model = 'mlp' | 'cnn';

/** Shares, as measured with the authors' code. */
type Measured = Record<
  | 'forget_train_acc'
  | 'retain_train_acc'
  | 'test_acc'
  | 'test_forget_class_acc'
  | 'test_retain_class_acc'
  | 'mia',
  number
>;

interface Dampened {
  alpha: number;
  lambda: number;
  n_selected: number;
  per_param_selected: Record<string, number>;
  after: Measured;
  file?: string;
}

interface Case {
  id: string;
  model: Model;
  importances: Record<'D' | 'Df', { file?: string; n_batches: number }>;
  before: Measured;
  dampened: Dampened[];
  assd?: Dampened & { percentile: number };
  max_ratio?: number;
}

interface Attack {
  mean_entropy: Record<'retain' | 'test' | 'forget', number>;
  multinomial: Record<'coef' | 'intercept' | 'forget_member_rate', number>;
  plain_binary: Record<'coef' | 'intercept', number>;
}

/** What a baseline measured. */
type Baseline = Record<'forget_train_acc' | 'retain_train_acc' | 'test_acc' | 'tow', number> & {
  test_retain_class_acc?: number;
};

interface Golden {
  models: Record<Model, { param_order: { name: string; shape: number[]; offset: number }[] }>;
  cases: Case[];
  dampen_unit: {
    w: number[];
    imp_D: (number | string)[];
    imp_Df: (number | string)[];
    cases: {
      alpha: number;
      lambda: number;
      exponent: number;
      lower_bound: number;
      out: number[];
    }[];
  };
  baselines_cnn: { tasks: Record<'class3' | 'random100', Record<string, Baseline>> };
  mia_example_cnn_class3: { before: Attack; after_a5_l1: Attack };
}

export const golden = JSON.parse(readFileSync(goldenPath('cases.json'), 'utf8')) as Golden;

function readNpy(path: string) {
  const file = readFileSync(goldenPath(path));
  const { dtype, offset } = parseNpyHeader(file, path);
  return { dtype, buffer: new Uint8Array(file.subarray(offset)).buffer };
}

export function readFloats(path: string): Float32Array {
  const { dtype, buffer } = readNpy(path);
  if (dtype !== 'float32') throw new Error(`${path} is ${dtype}`);
  return new Float32Array(buffer);
}

/** Row numbers into the arrays of `data/train.npz`. */
export function readIndices(path: string): number[] {
  const { dtype, buffer } = readNpy(path);
  if (dtype === 'int32') return [...new Int32Array(buffer)];
  if (dtype === 'int64') return Array.from(new BigInt64Array(buffer), Number);
  throw new Error(`${path} is ${dtype}`);
}

/** The images of `data/train.npz` or `data/test.npz` as the models want them, [n, 1, 28, 28]. */
export async function readImages(path: string): Promise<Float32Array> {
  const file = await openNpz(goldenPath(path));
  const name = file.names.find((candidate) => candidate !== 'label')!;
  const column = await file.column(name);
  const pixels = new Float32Array(column.length * 28 * 28);
  for (let i = 0; i < column.length; i++) {
    const { data } = await column.item(i);
    for (let j = 0; j < data.length; j++) pixels[i * data.length + j] = Number(data[j]) / 255;
  }
  return pixels;
}

/** The parts of a flat vector that belong to each parameter of a model. */
export const byParameter = (model: Model, flat: Float32Array) =>
  golden.models[model].param_order.map(({ name, shape, offset }) => ({
    name,
    shape,
    values: flat.subarray(offset, offset + shape.reduce((a, b) => a * b, 1)),
  }));

/** The cases whose importances are stored, with these, parameter by parameter. */
export const casesWithImportances = golden.cases.flatMap((record) => {
  const { D, Df } = record.importances;
  if (!D.file || !Df.file) return [];
  const full = byParameter(record.model, readFloats(D.file));
  const forget = byParameter(record.model, readFloats(Df.file));
  const pairs = full.map(({ name, values }, i) => ({
    name,
    forget: forget[i].values,
    full: values,
  }));
  return [{ ...record, pairs }];
});
