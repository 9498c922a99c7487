import { readFileSync } from 'node:fs';
import type { CoefficientRule } from '../../../../src/methods/merge/coefficient-rule.js';
import { goldenFolder } from '../../../support/golden-cases.js';
import { centred, dynamicModel, expectMergedAnswers, run, sampleOf } from './merged.js';

const t3 = goldenFolder('t3');
const file = (name: string) => new Uint8Array(readFileSync(t3.path(name)));

const models = { expert: file('expert_base.onnx'), generalist: file('generalist.onnx') };
const images = t3.read('input16.npy');
const input = {
  dtype: 'float32',
  dims: images.dims,
  data: Float32Array.from(images.values),
} as const;

const rules: Record<string, CoefficientRule> = {
  lit: { ...centred, form: 'literal', gamma: 0.5 } as CoefficientRule,
  cen: centred,
  cal: { ...centred, form: 'calibrated', tau: 0.0666 } as CoefficientRule,
};

/** The largest difference to a golden array. */
function off(got: ArrayLike<number | bigint>, name: string): number {
  const want = t3.read(name).values;
  expect(got).toHaveLength(want.length);
  return want.reduce((most, x, i) => Math.max(most, Math.abs(x - Number(got[i]))), 0);
}

test.each(['lit', 'cen', 'cal'])('%s, a batch: the golden logits', async (name) => {
  const { bytes } = await dynamicModel(models, 'batch', { rule: rules[name] });
  const { exp_logits: logits, lambda, js } = await run(bytes, { input });
  expect(off(logits.data, `e2e_${name}.logits_batch.npy`)).toBeLessThan(2e-5);
  expect(off(js.data, 'js16.npy')).toBeLessThan(1e-6);
  expect(lambda.dims).toEqual([1]);
  if (name === 'cal') expect(Number(lambda.data[0])).toBeCloseTo(0.9398706543, 5);
});

test.each(['lit', 'cen'])('%s, each sample: the golden logits', async (name) => {
  const { bytes, notes } = await dynamicModel(models, 'sample', { rule: rules[name] });
  const { exp_logits: logits, lambda } = await run(bytes, { input });
  expect(off(logits.data, `e2e_${name}.logits_sample.npy`)).toBeLessThan(2e-5);
  expect(off(lambda.data, `e2e_${name}.lam.npy`)).toBeLessThan(1e-5);
  expect(notes).toEqual([]);
});

test.each([
  ['batch', 'ref_t3_cen_batch.onnx'],
  ['sample', 'ref_t3_cen_sample.onnx'],
] as const)('%s: what the reference graph answers', async (mode, reference) => {
  const { bytes } = await dynamicModel(models, mode);
  const ours = await run(bytes, { input });
  const theirs = await run(file(reference), { input });
  for (const [name, own] of Object.entries({ logits: 'exp_logits', lambda: 'lambda', js: 'js' }))
    for (let i = 0; i < theirs[name].data.length; i++)
      expect(Number(ours[own].data[i])).toBeCloseTo(Number(theirs[name].data[i]), 4);
});

test.each(['batch', 'sample', 'cluster'] as const)(
  '%s: merging first and running then gives the same',
  async (mode) => {
    for (const rule of Object.values(rules)) await expectMergedAnswers(models, mode, { rule });
  },
);

test('a batch of one is one sample', async () => {
  const batch = await dynamicModel(models, 'batch');
  const sample = await dynamicModel(models, 'sample');
  const all = await run(sample.bytes, { input });
  for (const n of [0, 7]) {
    const one = await run(batch.bytes, sampleOf({ input }, n));
    for (let c = 0; c < 10; c++)
      expect(Number(one.exp_logits.data[c])).toBeCloseTo(
        Number(all.exp_logits.data[10 * n + c]),
        4,
      );
  }
});

test('the same bytes each time', async () => {
  for (const mode of ['batch', 'sample', 'cluster'] as const) {
    const [a, b] = [await dynamicModel(models, mode), await dynamicModel(models, mode)];
    expect(Buffer.compare(a.bytes, b.bytes)).toBe(0);
  }
});

/** The expert's initializers come first, in its order and under its names. */
test('weights of the expert keep their names and their order', async () => {
  const { model } = await dynamicModel(models, 'batch');
  const names = model.proto.graph!.initializer.map(({ name }) => name);
  expect(names.slice(0, 17)).toEqual(names.slice(0, 17).filter((name) => name?.startsWith('exp_')));
  expect(names.slice(17, 34).every((name) => name?.endsWith('@g'))).toBe(true);
});
