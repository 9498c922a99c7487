import { gradients } from '../../../src/autodiff/gradients.js';
import { computeImportances } from '../../../src/methods/unlearn/ssd/importance.js';
import {
  type ImportanceStore,
  meanImportances,
} from '../../../src/methods/unlearn/ssd/importance-file.js';
import { readTensorFloat32 } from '../../../src/onnx/index.js';
import { byParameter, golden, readFloats, readIndices } from '../unlearn/golden-ssd.js';
import { changedOf, dampenInMemory, goldenModel, goldenSets, type SsdInput } from './helpers.js';

type Name = 'mlp' | 'cnn';
const models: Name[] = ['mlp', 'cnn'];

/** The tolerances of the golden file. */
async function expectImportances(store: ImportanceStore, model: Name, file: string) {
  let [error, norm] = [0, 0];
  const flat = readFloats(`${model}/${file}.npy`);
  const largest = flat.reduce((a, b) => Math.max(a, b), 0);
  let off = 0;
  for (const { name, values } of byParameter(model, flat)) {
    const own = await meanImportances(store, name);
    expect(own).toHaveLength(values.length);
    for (const [i, expected] of values.entries()) {
      error += (own[i] - expected) ** 2;
      norm += expected ** 2;
      if (Math.abs(own[i] - expected) > 2e-3 * expected + 1e-8 * largest) off++;
    }
  }
  expect(Math.sqrt(error / norm)).toBeLessThan(1e-4);
  expect(off).toBe(0);
}

const settings = { task: 'classification', modelSha256: '', progress: () => {} } as const;
const fisher = {
  ...settings,
  kind: 'fisher-batch',
  loss: 'ce-mean-logits',
  order: 'as-given',
} as const;
const lossFree = {
  ...settings,
  task: 'none',
  kind: 'lfssd-abs',
  loss: 'sqnorm-logits',
  order: 'as-given',
} as const;

describe.each(models)('importances of the authors’ code: %s', (name) => {
  async function setup(loss: 'cross-entropy' | 'squared-norm' = 'cross-entropy') {
    const model = await goldenModel(name);
    const trained = await gradients(model, { loss });
    const { forget, retain } = await goldenSets(model, 'class3');
    const all = { ...retain, indices: [...retain.indices, ...forget.indices] };
    return { trained, forget, all };
  }

  test('batches of 64', async () => {
    const { trained, forget, all } = await setup();
    const full = await computeImportances(trained, all, { ...fisher, batchSize: 64 });
    await expectImportances(full, name, 'imp_D_class3_b64');
    expect(full.metadata).toMatchObject({
      batches: 63,
      samples: 4000,
      batchSize: 64,
      lastBatch: 32,
    });
    const own = await computeImportances(trained, forget, { ...fisher, batchSize: 64 });
    await expectImportances(own, name, 'imp_Df_class3_b64');
    const shuffled = { ...all, indices: readIndices('data/idx_shuffled_D.npy') };
    const mixed = await computeImportances(trained, shuffled, { ...fisher, batchSize: 64 });
    await expectImportances(mixed, name, 'imp_D_class3_b64_shufD');
    await trained.release();
  });

  test('single examples, many in a run', async () => {
    const { trained, forget, all } = await setup();
    let runs = 0;
    const { runSquares } = trained;
    trained.runSquares = (...given) => {
      runs++;
      return runSquares.apply(trained, given);
    };
    const full = await computeImportances(trained, all, { ...fisher, batchSize: 1 });
    await expectImportances(full, name, 'imp_D_class3_b1');
    expect(full.metadata).toMatchObject({ batches: 4000, samples: 4000, lastBatch: 1 });
    // Some dozens of runs, of many examples each, and one to see whether that is allowed.
    expect(runs).toBeGreaterThan(1);
    expect(runs).toBeLessThan(1000);
    await expectImportances(
      await computeImportances(trained, forget, { ...fisher, batchSize: 1 }),
      name,
      'imp_Df_class3_b1',
    );
    await trained.release();
  });

  test('single examples, one by one', async () => {
    const { trained, forget } = await setup();
    trained.runSquares = async () => undefined;
    const own = await computeImportances(trained, forget, { ...fisher, batchSize: 1 });
    await expectImportances(own, name, 'imp_Df_class3_b1');
    await trained.release();
  });

  test('without labels', async () => {
    const { trained, forget, all } = await setup('squared-norm');
    await expectImportances(
      await computeImportances(trained, all, { ...lossFree, batchSize: 64 }),
      name,
      'imp_D_class3_lf_b64',
    );
    await expectImportances(
      await computeImportances(trained, forget, { ...lossFree, batchSize: 64 }),
      name,
      'imp_Df_class3_lf_b64',
    );
    await trained.release();
  });
});

/** How the command is told what the golden cases did. */
const flags: Record<string, SsdInput> = {
  class3_b64: {},
  class3_b1: { fisher: 'sample' },
  class3_lfssd_b64: { variant: 'lfssd' },
  random100_b128: { batchSize: 128 },
};

const dampened = golden.cases.flatMap(({ id, model, dampened: outcomes }) =>
  outcomes.flatMap(({ file, ...outcome }) => (file ? [{ id, model, file, ...outcome }] : [])),
);

describe('weights that the authors’ code makes', () => {
  test('there are five for each model', () => expect(dampened).toHaveLength(10));

  test.each(dampened)('$id, alpha $alpha, lambda $lambda', async (expected) => {
    const { id, model: name, alpha, lambda, file } = expected;
    const model = await goldenModel(name);
    const sets = await goldenSets(model, /random/.test(id) ? 'random100' : 'class3');
    const given = { ...flags[id.replace(`${name}_`, '')], alpha, lambda };
    const { layers } = await dampenInMemory(model, given, sets);
    // Ratios may fall on the other side of alpha by rounding: at most five in all.
    let off = 0;
    for (const { name: parameter, values } of byParameter(name, readFloats(file))) {
      const tensor = model.proto.graph!.initializer.find((t) => t.name === parameter)!;
      const own = await readTensorFloat32(model, tensor);
      for (const [i, value] of values.entries()) if (Math.abs(own[i] - value) > 2e-5) off++;
    }
    expect(off).toBeLessThanOrEqual(5);
    const changed = changedOf(layers);
    for (const [parameter, selected] of Object.entries(expected.per_param_selected))
      expect(Math.abs((changed[parameter] ?? 0) - selected)).toBeLessThanOrEqual(off);
  });
});

describe.each(models)('nothing is selected: %s', (name) => {
  test('with single examples no ratio exceeds all data over the forget set', async () => {
    const model = await goldenModel(name);
    const { forget, retain } = await goldenSets(model, 'class3');
    // A fifth of the data has the same bound.
    const some = {
      forget: { ...forget, indices: forget.indices.filter((_, i) => i % 5 === 0) },
      retain: { ...retain, indices: retain.indices.filter((_, i) => i % 5 === 0) },
    };
    const given = { alpha: 10, fisher: 'sample' } as const;
    const refusal = await dampenInMemory(model, given, some).then(
      () => undefined,
      (error) => error,
    );
    expect(refusal).toMatchObject({
      exitCode: 5,
      message: expect.stringContaining('No parameter was selected'),
      detail: {
        got: expect.stringMatching(/median .* 90 % .* 99 % .* 99.9 % .*no ratio can exceed 10/),
        hint: expect.stringMatching(/--alpha [\d.]+/),
      },
    });
    expect(model.edits.size).toBe(0);
    const suggested = Number(/--alpha ([\d.]+)/.exec(refusal.detail.hint)?.[1]);
    const { layers } = await dampenInMemory(model, { ...given, alpha: suggested }, some);
    const total = Object.values(changedOf(layers)).reduce((a, b) => a + b, 0);
    expect(total).toBeGreaterThan(0);
  });
});

test.each(golden.cases.filter(({ assd }) => assd))(
  'adaptive: $id',
  async ({ id, model: name, assd }) => {
    const model = await goldenModel(name);
    const sets = await goldenSets(model, /random/.test(id) ? 'random100' : 'class3');
    const given = { ...flags[id.replace(`${name}_`, '')], variant: 'assd' } as const;
    const { notes, layers } = await dampenInMemory(model, given, sets);
    const alpha = Number(notes.map((note) => /^alpha ([\d.]+)/.exec(note)?.[1]).find(Boolean));
    expect(Math.abs(alpha / assd!.alpha - 1)).toBeLessThan(0.005); // shown with three digits
    const total = Object.values(changedOf(layers)).reduce((a, b) => a + b, 0);
    expect(Math.abs(total - assd!.n_selected)).toBeLessThanOrEqual(5);
  },
);
