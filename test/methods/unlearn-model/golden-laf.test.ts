import { type GradientModel, gradients } from '../../../src/autodiff/gradients.js';
import type { LossGraph } from '../../../src/autodiff/loss-graph.js';
import { Adam } from '../../../src/autodiff/optimizer.js';
import { batchTarget } from '../../../src/autodiff/targets.js';
import { batches, type Dataset, openDataset } from '../../../src/data/index.js';
import { modelInputs } from '../../../src/graph/interface.js';
import {
  Alternation,
  type Pair,
  type PairLosses,
} from '../../../src/methods/unlearn/laf/alternation.js';
import {
  alignmentTerm,
  keptInput,
  noiseInput,
  teacherInput,
  unlearningTerm,
} from '../../../src/methods/unlearn/laf/losses.js';
import { vaeLoss, vaeModel, vaeSizes } from '../../../src/methods/unlearn/laf/vae.js';
import { readModel } from '../../../src/onnx/index.js';
import type { Feeds } from '../../../src/runtime/session.js';
import {
  batchRows,
  flat,
  golden,
  lafPath,
  named,
  noise,
  relativeError,
  rows,
  values,
} from '../unlearn/golden-laf.js';
import { goldenPath } from '../unlearn/golden-ssd.js';
import { byRepresentations } from '../unlearn/laf-terms.js';

const sizes = vaeSizes(64, 4);
const order = golden.model.param_order;
const split = golden.model.embedding_tensor;
const vaes = {
  all: named(values('B_s_vae_params.npy'), golden.vae.param_order),
  forgotten: named(values('B_u_vae_params.npy'), golden.vae.param_order),
};
const tensor = ({ values, width }: ReturnType<typeof rows>) => ({
  dtype: 'float32' as const,
  dims: [values.length / width, width],
  data: values,
});

/** A term that shows its distances. */
const told = (side: keyof Pair, temperature: number) => {
  const term = alignmentTerm(side, split, temperature);
  return { ...term, shown: [term.distances] };
};

const keptCount = {
  [keptInput]: { dtype: 'float32' as const, dims: [], data: Float32Array.of(32) },
};

/** Adam turns a gradient of almost 0 whose sign flips into two steps. */
function expectOneStep(got: Float32Array, want: Float32Array, rate: number) {
  const errors = Array.from(want, (w, i) => Math.abs(got[i] - w));
  const near = errors.filter((e) => e <= 0.05 * rate).length / errors.length;
  expect(near).toBeGreaterThanOrEqual(0.995);
  expect(Math.max(...errors)).toBeLessThanOrEqual(2.1 * rate);
}

describe('the autoencoder', () => {
  const start = named(values('A_vae_params0.npy'), golden.vae.param_order);

  /** Five steps on the representations of the batches, as the original has them. */
  async function train(steps: number) {
    const { model, outputs } = vaeModel(sizes, start);
    const loss = vaeLoss(outputs);
    const { mean, deviation, reconstruction } = outputs;
    const shown = [loss.error, loss.divergence, mean, deviation, reconstruction];
    const vae = await gradients(model, { loss: { ...loss, shown } });
    const optimizer = new Adam({ learningRate: 1e-3 });
    const made = [];
    for (let k = 0; k < steps; k++) {
      const e = k === 0 ? tensor(rows('A_embed.npy')) : await embed(await feedsOf('kept', k));
      const step = await vae.run({ e, noise: tensor(noise(k)) });
      optimizer.step(vae.values, step.gradients);
      made.push(step);
    }
    await vae.release();
    return { made, loss, outputs, after: flat(vae.values, golden.vae.param_order) };
  }

  test('loss, gradients and one step', async () => {
    const { made, loss, outputs, after } = await train(1);
    const [step] = made;
    const { recon_loss, kld, loss: total } = golden.A_vae_step;
    expect(step.loss).toBeCloseTo(total, 3);
    expect(step.shown[loss.error].data[0]).toBeCloseTo(recon_loss, 3);
    expect(step.shown[loss.divergence].data[0]).toBeCloseTo(kld, 5);
    for (const [output, file] of [
      [outputs.mean, 'A_mu.npy'],
      [outputs.deviation, 'A_sigma.npy'],
      [outputs.reconstruction, 'A_recon.npy'],
    ])
      expect(relativeError(step.shown[output].data as Float32Array, values(file))).toBeLessThan(
        1e-5,
      );
    const gradient = flat(step.gradients, golden.vae.param_order);
    expect(relativeError(gradient, values('A_vae_grads.npy'))).toBeLessThan(5e-4);
    expectOneStep(after, values('A_vae_params1.npy'), 1e-3);
  });

  test('five steps', async () => {
    const { made, after } = await train(5);
    for (const [k, want] of golden.A2_vae_5_steps.losses.entries())
      expect(Math.abs(made[k].loss - want)).toBeLessThan(2e-3);
    expect(relativeError(after, values('A2_vae_params5.npy'))).toBeLessThan(1e-3);
  });
});

describe('gradients by representations', () => {
  test.each([
    ['kept', vaes.all, 'B_s_embed.npy', noise(0), 'B_seed_s.npy'],
    ['forgotten', vaes.forgotten, 'B_u_embed.npy', noise(1), 'B_seed_u.npy'],
  ] as const)('of unlearning, %s', async (side, vae, embedded, epsilon, seed) => {
    const { gradient } = await byRepresentations(
      rows(embedded),
      unlearningTerm(side, 'e', sizes, vae),
      { [noiseInput]: tensor(epsilon) },
    );
    expect(relativeError(gradient, values(seed))).toBeLessThan(1e-4);
  });

  test.each([
    ['kept', 'remain'],
    ['forgotten', 'unlearn'],
  ] as const)('of alignment, %s', async (side, name) => {
    const { gradient } = await byRepresentations(
      rows(`C2_student_embed_${name}.npy`),
      alignmentTerm(side, 'e', 20),
      { [teacherInput]: tensor(rows(`C2_teacher_embed_${name}.npy`)), ...keptCount },
    );
    expect(relativeError(gradient, values(`C2_seed_${name}.npy`))).toBeLessThan(1e-4);
  });
});

let images: Dataset;
let model: GradientModel;
beforeAll(async () => {
  const source = await readModel(lafPath('laf.onnx'));
  images = await openDataset(goldenPath('data/train.yaml'), modelInputs(source.proto));
  model = await gradients(source, { loss: { seeds: [split] }, output: split });
});
afterAll(() => model.release());
// Other tests start from the original.
let original: Map<string, Float32Array>;
beforeEach(() => {
  original ??= new Map([...model.values].map(([name, own]) => [name, Float32Array.from(own)]));
  for (const [name, own] of original) model.values.get(name)?.set(own);
});

const extractor = order.filter(({ name }) => !name.startsWith('fc2'));
const byExtractor = { parameters: ({ name }: { name: string }) => !name.startsWith('fc2') };

async function feedsOf(side: keyof Pair, k: number) {
  const indices = batchRows(side === 'kept' ? 'remain' : 'unlearn', k);
  for await (const { feeds } of batches(images, indices, 64, model.inputs)) return feeds;
  throw new Error('there is a batch');
}

const embed = (feeds: Feeds) => model.predict(feeds);

/** Loss and gradients of batch k: the sums of those of either side. */
async function bothTerms(k: number, terms: Record<keyof Pair, [LossGraph, Feeds]>) {
  const run = async (side: keyof Pair) => {
    const [loss, inputs] = terms[side];
    const under = model.with({ loss });
    const step = await under.run(await feedsOf(side, k), { inputs });
    await under.release();
    return step;
  };
  const steps = { kept: await run('kept'), forgotten: await run('forgotten') };
  const total = new Map(
    [...steps.kept.gradients].map(([name, own]) => [
      name,
      own.map((g, i) => g + (steps.forgotten.gradients.get(name)?.[i] ?? Number.NaN)),
    ]),
  );
  return { loss: steps.kept.loss + steps.forgotten.loss, gradients: total, steps };
}

test('unlearning loss: value, gradients and one step', async () => {
  const { loss, gradients: g } = await bothTerms(0, {
    kept: [unlearningTerm('kept', split, sizes, vaes.all), { [noiseInput]: tensor(noise(0)) }],
    forgotten: [
      unlearningTerm('forgotten', split, sizes, vaes.forgotten),
      { [noiseInput]: tensor(noise(1)) },
    ],
  });
  expect(Math.abs(loss - golden.B_extractor_step.L_UE)).toBeLessThan(2e-4);
  expect(relativeError(flat(g, order), values('B_grads.npy'))).toBeLessThan(5e-4);
  for (const name of golden.B_extractor_step.params_without_gradient)
    expect(g.get(name)?.every((x) => x === 0)).toBe(true);
  new Adam({ learningRate: 5e-5 }).step(model.values, g);
  expectOneStep(flat(model.values, order), values('B_params1.npy'), 5e-5);
});

test('alignment loss: one tiny step from the original', async () => {
  for (const [name, own] of named(values('B_params1.npy'), order)) model.values.get(name)?.set(own);
  const { loss, gradients: g } = await bothTerms(0, {
    kept: [alignmentTerm('kept', split, 20), { [teacherInput]: tensor(rows('B_s_embed.npy')) }],
    forgotten: [
      alignmentTerm('forgotten', split, 20),
      { [teacherInput]: tensor(rows('B_u_embed.npy')), ...keptCount },
    ],
  });
  expect(Math.abs(loss - golden.C_alignment_step.L_RA)).toBeLessThan(2e-4);
  expect(relativeError(flat(g, order), values('C_grads.npy'))).toBeLessThan(5e-3);
  new Adam({ learningRate: 1e-4 }).step(model.values, g);
  expectOneStep(flat(model.values, order), values('C_params2.npy'), 1e-4);
});

test.each([
  [20, golden.C2_alignment.L_RA],
  [5, golden.C2_alignment.L_RA_at_temperature_5],
])('alignment loss further from it, at temperature %s', async (temperature, want) => {
  for (const [name, own] of named(values('C2_student_params.npy'), order))
    model.values.get(name)?.set(own);
  const terms = {
    kept: told('kept', temperature),
    forgotten: told('forgotten', temperature),
  };
  const teacher = (file: string) => ({ [teacherInput]: tensor(rows(file)) });
  const {
    loss,
    gradients: g,
    steps,
  } = await bothTerms(1, {
    kept: [terms.kept, teacher('C2_teacher_embed_remain.npy')],
    forgotten: [terms.forgotten, { ...teacher('C2_teacher_embed_unlearn.npy'), ...keptCount }],
  });
  expect(Math.abs(loss - want)).toBeLessThan(2e-4);
  for (const [side, file] of [
    ['kept', 'C2_cosdist_remain.npy'],
    ['forgotten', 'C2_cosdist_unlearn.npy'],
  ] as const) {
    const distances = steps[side].shown[terms[side].distances].data as Float64Array;
    expect(relativeError(distances, values(file))).toBeLessThan(1e-4);
  }
  if (temperature === 20)
    expect(relativeError(flat(g, order), values('C2_grads.npy'))).toBeLessThan(5e-4);
});

test.each(['D_1ep', 'D_1ep_scaled_lr'] as const)('five pairs of steps: %s', async (name) => {
  const run = golden[name];
  const alternation = new Alternation(model.with(byExtractor), {
    split,
    sizes,
    vaes,
    rates: { unlearning: run.lr_ue, alignment: run.lr_ra },
    temperature: run.temperature,
    threads: 1,
  });
  const losses: PairLosses[] = [];
  const teacher = new Map<string, Float32Array>();
  for (let k = 0; k < 5; k++) {
    for (const side of ['kept', 'forgotten'] as const)
      teacher.set(`${side} ${k}`, (await embed(await feedsOf(side, k))).data as Float32Array);
  }
  for (let k = 0; k < 5; k++) {
    const side = async (name: keyof Pair, drawn: ReturnType<typeof noise>) => ({
      feeds: await feedsOf(name, k),
      teacher: { values: teacher.get(`${name} ${k}`) as Float32Array, width: 64 },
      noise: drawn,
    });
    const kept = await side('kept', noise(2 * k));
    losses.push(
      await alternation.step({ kept, forgotten: await side('forgotten', noise(2 * k + 1)) }),
    );
  }
  await alternation.release();
  const mean = (key: 'unlearning' | 'alignment') =>
    losses.reduce((sum, l) => sum + l[key], 0) / losses.length;
  expect(Math.abs(mean('unlearning') - run.mean_L_UE)).toBeLessThan(2e-4);
  expect(Math.abs(mean('alignment') - run.mean_L_RA)).toBeLessThan(2e-4);
  const update = flat(model.values, order).map((x, i) => x - flat(original, order)[i]);
  const want = values(run.params_after).map((x, i) => x - flat(original, order)[i]);
  const cosine =
    update.reduce((s, x, i) => s + x * want[i], 0) / Math.hypot(...update) / Math.hypot(...want);
  expect(cosine).toBeGreaterThanOrEqual(0.9999);
  expect(relativeError(update, want)).toBeLessThanOrEqual(1e-2);
  for (const { name: own } of order)
    if (!extractor.some((e) => e.name === own))
      expect(model.values.get(own)).toEqual(original.get(own));
});

test('gradients of the classifier: five steps of a repair', async () => {
  const { lr, changed } = golden.R_repair_1ep;
  const classifier = model.with({
    output: undefined,
    loss: 'cross-entropy',
    parameters: ({ name }) => changed.includes(name),
  });
  const optimizer = new Adam({ learningRate: lr });
  for (let k = 0; k < 5; k++) {
    for await (const batch of batches(images, batchRows('remain', k), 32, model.inputs)) {
      const target = await batchTarget(classifier, 'classification', batch);
      const { gradients: g } = await classifier.run(batch.feeds, target);
      optimizer.step(classifier.values, g);
    }
  }
  await classifier.release();
  const after = flat(model.values, order);
  const want = values('R_params.npy');
  const start = flat(original, order);
  const update = after.map((x, i) => x - start[i]);
  const wanted = want.map((x, i) => x - start[i]);
  const moved = order.filter(({ name }) =>
    model.values.get(name)?.some((x, i) => x !== original.get(name)?.[i]),
  );
  expect(moved.map(({ name }) => name)).toEqual(changed);
  expect(relativeError(update, wanted)).toBeLessThanOrEqual(1e-2);
});
