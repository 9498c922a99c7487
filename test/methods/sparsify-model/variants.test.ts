import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceSession } from 'onnxruntime-node';
import { type Dataset, openDataset } from '../../../src/data/index.js';
import { evaluateModels } from '../../../src/evaluate/evaluate.js';
import { inlineFunctions } from '../../../src/graph/functions.js';
import { Graph } from '../../../src/graph/graph.js';
import { modelInputs } from '../../../src/graph/interface.js';
import { findLinearLayers } from '../../../src/graph/linear-layers.js';
import { readMatrix } from '../../../src/graph/weight-matrix.js';
import { sparsify } from '../../../src/methods/sparsify/method.js';
import { encodeModel, Model, parseModel, readModel, writeModel } from '../../../src/onnx/index.js';
import { inRepository } from '../../support/cli.js';
import { distance, floatTensor, runOnce } from '../../support/run.js';
import { original, readOriginal, reference, type Variant, variants } from '../../support/variants.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-variants-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const written = new Map<string, string>();
const pathOf = (variant: Variant): string => {
  const known = written.get(variant.name);
  if (known) return known;
  const path = variant.write(mkdtempSync(join(folder, 'variant-')));
  written.set(variant.name, path);
  return path;
};

const first = (n: number) => Array.from({ length: n }, (_, i) => i);
const inputs = modelInputs(readOriginal());
let test400: Dataset;
let training: Dataset;
beforeAll(async () => {
  test400 = await openDataset(inRepository('fixtures/resnet8/test.yaml'), inputs);
  training = await openDataset(inRepository('fixtures/resnet8/train.yaml'), inputs);
});

/** Weights `[out, in]` of the layers of the original, in its order; `never` is the branch that is not taken. */
async function weightsOf(model: Model): Promise<Float32Array[]> {
  const layers = findLinearLayers(new Graph(inlineFunctions(model.proto)));
  const found: Float32Array[] = [];
  for (const { name, weight, skip } of layers) {
    if (name === 'never') continue;
    expect(skip).toBeUndefined();
    if (!weight) throw new Error(`${name} has no weight`);
    found.push(await readMatrix(model, weight));
  }
  return found;
}

const referenceModel = (variant: Pick<Variant, 'rounds'>): Model =>
  parseModel(encodeModel(reference(variant)));

const zeros = (weights: Float32Array[]): string[] =>
  weights.map((w) => Array.from(w, (v) => (v === 0 ? 0 : 1)).join(''));

const methods = {
  magnitude: { sparsity: 0.5, init: 'magnitude', refine: 'none' },
  wanda: { sparsity: 0.5, init: 'wanda', refine: 'none', calibMode: 'oneshot' },
  dsnot: { sparsity: 0.5, init: 'wanda', refine: 'dsnot', calibMode: 'oneshot' },
  sequential: { sparsity: 0.5, init: 'wanda', refine: 'dsnot', calibMode: 'sequential' },
} as const;

async function prune(model: Model, how: keyof typeof methods) {
  const parameters = sparsify.parameters.parse(methods[how]);
  return sparsify.apply(model, parameters, {
    calibration: how === 'magnitude' ? undefined : { dataset: training, indices: first(16).map((i) => i * 250) },
    selects: () => true,
    threads: 2,
    seed: 0,
    progress: () => {},
  });
}

const image = floatTensor(
  [2, 1, 28, 28],
  Array.from({ length: 2 * 28 * 28 }, (_, i) => Math.sin(i) + Math.cos(i / 28)),
);

describe.each(variants)('resnet8: $name', (variant) => {
  test('loads in ONNX Runtime and classifies as well as the original', async () => {
    const path = pathOf(variant);
    const data = { kind: 'data', dataset: test400, indices: first(400).map((i) => i * 5) } as const;
    const { task } = await evaluateModels([original, path], data, { task: 'classification', threads: 2, batchSize: 100 });
    expect(task[0].accuracy).toBeGreaterThan(0.9);
    expect(Math.abs(task[1].accuracy - task[0].accuracy)).toBeLessThanOrEqual(0.005);
  });

  test('has the weights of the original', async () => {
    const own = await weightsOf(await readModel(pathOf(variant)));
    const expected = await weightsOf(referenceModel(variant));
    expect(own.length).toBe(10);
    for (const [i, w] of own.entries()) expect(Buffer.from(w.buffer, w.byteOffset, w.byteLength).equals(Buffer.from(expected[i].buffer, expected[i].byteOffset, expected[i].byteLength))).toBe(true);
  });

  test.each(Object.keys(methods) as (keyof typeof methods)[])('%s', async (how) => {
    const model = await readModel(pathOf(variant));
    const plain = referenceModel(variant);
    const surgery = await prune(model, how);
    await prune(plain, how);
    expect(surgery.layers.filter((l) => l.status === 'changed').map(l => l.sparsity)).toHaveLength(how === 'magnitude' && variant.inBody ? 11 : 10);
    const own = zeros(await weightsOf(model));
    const expected = zeros(await weightsOf(plain));
    if (variant.sameArithmetic) expect(own).toEqual(expected);

    const out = join(mkdtempSync(join(folder, 'out-')), 'pruned.onnx');
    await writeModel(model, out);
    const session = await InferenceSession.create(out);
    await session.release();
    const plainOut = join(mkdtempSync(join(folder, 'out-')), 'plain.onnx');
    await writeModel(plain, plainOut);
    const a = await runOnce(out, { image });
    const b = await runOnce(plainOut, { image });
    expect(distance(b.logits, a.logits)).toBeLessThan(variant.sameArithmetic ? 1e-5 : 0.05);
  });
});
