import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Dataset, openDataset } from '../../../src/data/index.js';
import { evaluateModels } from '../../../src/evaluate/evaluate.js';
import { modelInputs } from '../../../src/graph/interface.js';
import {
  encodeModel,
  type Model,
  parseModel,
  readModel,
  writeModel,
} from '../../../src/onnx/index.js';
import { withSession } from '../../../src/runtime/session.js';
import { inRepository } from '../../support/cli.js';
import { distance, floatTensor, type Output, runOnce } from '../../support/run.js';
import {
  original,
  readOriginal,
  reference,
  type Variant,
  variants,
} from '../../support/variants.js';
import { layersOf, layerWeights, sparsifyInMemory, zeroPattern } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-variants-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const newFolder = () => mkdtempSync(join(folder, 'model-'));

/** The first call's result for every later one of the same key. */
function once<K, T>(make: (key: K) => T): (key: K) => T {
  const known = new Map<K, T>();
  return (key) => {
    if (!known.has(key)) known.set(key, make(key));
    return known.get(key) as T;
  };
}

const pathOf = once((variant: Variant) => variant.write(newFolder()));
const every = (step: number, n: number) => Array.from({ length: n }, (_, i) => i * step);

const inputs = modelInputs(readOriginal());
const data = once((name: string) => openDataset(inRepository(`fixtures/resnet8/${name}`), inputs));
const accuracy = once(async (path: string) => {
  const on = { kind: 'data', dataset: await data('test.yaml'), indices: every(5, 400) } as const;
  const { metrics } = await withSession(path, { threads: 2 }, (session) =>
    evaluateModels([session], on, { task: 'classification' }),
  );
  return metrics[0].accuracy;
});

const methods = {
  magnitude: { sparsity: 0.5, init: 'magnitude', refine: 'none' },
  wanda: { sparsity: 0.5, init: 'wanda', refine: 'none', calibMode: 'oneshot' },
  dsnot: { sparsity: 0.5, init: 'wanda', refine: 'dsnot', calibMode: 'oneshot' },
  'dsnot, sequential': { sparsity: 0.5, init: 'wanda', refine: 'dsnot', calibMode: 'sequential' },
} as const;
type How = keyof typeof methods;

const image = floatTensor(
  [2, 1, 28, 28],
  every(1, 2 * 28 * 28).map((i) => Math.sin(i) + Math.cos(i / 28)),
);

/** Zeroes of each layer of the original after pruning, and what the written model puts out. */
async function pruned(model: Model, how: How): Promise<{ zeros: string[]; logits: Output }> {
  const dataset: Dataset | undefined = how === 'magnitude' ? undefined : await data('train.yaml');
  await sparsifyInMemory(model, { parameters: methods[how], dataset, indices: every(250, 16) });
  const out = join(newFolder(), 'pruned.onnx');
  await writeModel(model, out);
  const weights = await weightsOf(await readModel(out));
  const { logits } = await runOnce(out, { image });
  return { zeros: weights.map(zeroPattern), logits };
}

/** Weights of the original's layers in its order, without the branch that is not taken. */
async function weightsOf(model: Model): Promise<Float32Array[]> {
  const weights = await layerWeights(model);
  weights.delete('never');
  return [...weights.values()];
}

const referenceModel = (rounds: Variant['rounds']) =>
  parseModel(encodeModel(reference({ rounds })));
const prunedReference = once((how: How) =>
  once((rounds: Variant['rounds']) => pruned(referenceModel(rounds), how)),
);

const bitsOf = (w: Float32Array) => Buffer.from(w.buffer, w.byteOffset, w.byteLength);

describe.each(variants)('resnet8: $name', (variant) => {
  test('classifies as well as the original', async () => {
    const [before, after] = [await accuracy(original), await accuracy(pathOf(variant))];
    expect(before).toBeGreaterThan(0.9);
    expect(Math.abs(after - before)).toBeLessThan(0.005 + 1e-9);
  });

  test('has the layers and weights of the original', async () => {
    const model = await readModel(pathOf(variant));
    expect(layersOf(model).filter(({ skip, isHead }) => skip || isHead)).toEqual([]);
    const own = await weightsOf(model);
    const expected = await weightsOf(referenceModel(variant.rounds));
    expect(own.length).toBe(10);
    for (const [i, w] of own.entries()) {
      expect(bitsOf(w).equals(bitsOf(expected[i]))).toBe(true);
    }
  });

  const applicable = (Object.keys(methods) as How[]).filter(
    (how) => !(variant.inBody && how === 'dsnot, sequential'), // a body is one segment
  );
  test.each(applicable)('%s zeroes the same weights', async (how) => {
    const own = await pruned(await readModel(pathOf(variant)), how);
    const expected = await prunedReference(how)(variant.rounds);
    if (variant.sameArithmetic || how === 'magnitude') expect(own.zeros).toEqual(expected.zeros);
    // Half-precision activations tip a few near ties; each digit stands for half a weight.
    const [a, b] = [own.zeros.join(''), expected.zeros.join('')];
    const unlike = [...a].filter((digit, k) => digit !== b[k]).length;
    expect(unlike / (a.length / 2)).toBeLessThan(variant.sameArithmetic ? 1e-9 : 0.1);
    const tolerance = variant.sameArithmetic ? 1e-5 : 0.2;
    expect(distance(expected.logits, own.logits)).toBeLessThan(tolerance);
  });
});

test('a layer in a branch that is never taken is left as it is, and said so', async () => {
  const variant = variants.find(({ name }) => name === 'branch with weights')!;
  const model = await readModel(pathOf(variant));
  const before = (await layerWeights(model)).get('never');
  const { layers } = await sparsifyInMemory(model, {
    parameters: methods.wanda,
    dataset: await data('train.yaml'),
    indices: [0],
  });
  expect(layers.find(({ name }) => name === 'never')).toMatchObject({
    status: 'skipped',
    reason: 'no calibration sample reached it',
  });
  expect((await layerWeights(model)).get('never')).toEqual(before);
});
