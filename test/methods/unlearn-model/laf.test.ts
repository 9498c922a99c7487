import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { gradients } from '../../../src/autodiff/gradients.js';
import { accuracyOf } from '../../../src/evaluate/forgetting/accuracy.js';
import { remembered } from '../../../src/evaluate/forgetting/remembered.js';
import type { Context, TaskData } from '../../../src/methods/method.js';
import { laf } from '../../../src/methods/unlearn/laf/method.js';
import {
  type FloatTensor,
  openSafetensors,
  writeSafetensors,
} from '../../../src/methods/unlearn/safetensors.js';
import {
  encodeModel,
  type Model,
  parseModel,
  readModel,
  serializeModel,
} from '../../../src/onnx/index.js';
import { scratchFolder } from '../../support/cli.js';
import { ints, node, model as protoModel, value, weight } from '../../support/protos.js';
import { golden, lafPath } from '../unlearn/golden-laf.js';
import { goldenPath } from '../unlearn/golden-ssd.js';
import { around, changedOf, examples, tensorBytes } from './helpers.js';

const folder = scratchFolder();
const original = () => readModel(lafPath('laf.onnx'));
const split = golden.model.embedding_tensor;
/** What the golden runs were made with. */
const recipe = { split, latent: 4, temperature: 20 };

let all: TaskData;
let test_: TaskData;
beforeAll(async () => {
  const open = async (name: string) => {
    const set = await examples(await original(), goldenPath(`data/${name}.yaml`));
    return { ...set, dataset: remembered(set.dataset) };
  };
  all = await open('train');
  test_ = await open('test');
});

const where = (set: TaskData, wanted: (label: number) => boolean): TaskData => ({
  ...set,
  indices: set.indices.filter((i) => wanted(set.dataset.label!(i))),
});
const zero = (label: number) => label === 0;
const others = (label: number) => label !== 0;

/** Class 0 of a part of the data. */
const sets = (every: number): Pick<Context, 'forget' | 'retain'> => {
  const some = { ...all, indices: all.indices.filter((i) => i % every === 0) };
  return { forget: where(some, zero), retain: where(some, others) };
};

async function forgetting(
  given: z.input<typeof laf.parameters>,
  given_: Partial<Context> = sets(10),
) {
  const model = await original();
  const result = await laf.apply(
    model,
    laf.parameters.parse({ ...recipe, ...given }),
    around(given_),
  );
  return { model, ...result };
}

/** The edited values, by tensor. */
const valuesOf = async (model: Model) =>
  Object.fromEntries(
    (await tensorBytes(model)).map(({ name, bytes }) => [name, bytes.toString('base64')]),
  );

async function accuracy(model: Model, set: TaskData): Promise<number> {
  const trained = await gradients(parseModel(await serializeModel(model)), {
    loss: 'cross-entropy',
  });
  const share = await accuracyOf(trained, set);
  await trained.release();
  return 100 * share;
}

describe('whole runs reach what those of the authors reached', () => {
  test('at four times the published rates, which is the default here', async () => {
    const band = golden.E_full_runs_small.target_band_scaled_lr;
    const { model, notes, layers, training } = await forgetting({}, sets(1));
    expect(notes.join()).toMatch(/260 pairs of steps at rates 0.0002 and 0.0004/);
    expect(await accuracy(model, where(all, zero))).toBeLessThanOrEqual(band.forget_train_max);
    expect(await accuracy(model, where(all, others))).toBeGreaterThanOrEqual(band.remain_train_min);
    const [forgotten, kept] = [where(test_, zero), where(test_, others)];
    expect(await accuracy(model, forgotten)).toBeLessThanOrEqual(band.test_forget_class_max);
    expect(await accuracy(model, kept)).toBeGreaterThanOrEqual(band.test_remain_class_min);
    // Only the extractor.
    const changed = Object.keys(changedOf(layers));
    expect(changed.sort()).toEqual(
      golden.model.param_order.flatMap(({ name }) => (/^fc2/.test(name) ? [] : name)).sort(),
    );
    expect(training?.map(({ stage, epochs }) => [stage, epochs.length])).toEqual([
      ['autoencoder of all examples', 10],
      ['autoencoder of the forget set', 10],
      ['unlearning', 20],
    ]);
  });

  test('at the published rates, which hardly forget in so few steps', async () => {
    const { forget_train: band, remain_train_min } = golden.E_full_runs_small.target_band_ref_lr;
    const given = { unlearnRate: 5e-5, alignRate: 1e-4 };
    const { model, notes } = await forgetting(given, sets(1));
    const left = await accuracy(model, where(all, zero));
    expect(left).toBeGreaterThanOrEqual(band[0]);
    expect(left).toBeLessThanOrEqual(band[1]);
    expect(await accuracy(model, where(all, others))).toBeGreaterThanOrEqual(remain_train_min);
    expect(notes.join()).toMatch(/WARNING: so few may forget little; .*--epochs 77/);
  });
});

const quick = { epochs: 3, vaeEpochs: 2 };

test('the same seed gives the same bytes, another seed others', async () => {
  const [a, b, c] = await Promise.all([
    forgetting(quick),
    forgetting(quick),
    forgetting(quick, { ...sets(10), seed: 1 }),
  ]);
  expect(await valuesOf(a.model)).toEqual(await valuesOf(b.model));
  expect(await valuesOf(a.model)).not.toEqual(await valuesOf(c.model));
});

test('no label is read', async () => {
  const blind = (set: TaskData): TaskData => ({
    ...set,
    task: 'none',
    dataset: {
      ...set.dataset,
      label: undefined,
      example: async (i) => ({ inputs: (await set.dataset.example(i)).inputs }),
    },
  });
  const { forget, retain } = sets(10);
  const { model } = await forgetting(quick, { forget: blind(forget!), retain: blind(retain!) });
  expect(await valuesOf(model)).toEqual(await valuesOf((await forgetting(quick)).model));
});

test('forget sets smaller than a batch, of one example', async () => {
  const { forget, retain } = sets(10);
  const one = { ...forget!, indices: forget!.indices.slice(0, 1) };
  const { notes, layers } = await forgetting(quick, { forget: one, retain });
  expect(notes.join()).toMatch(
    /3 pairs of steps .* WARNING: so few may forget little; .*--epochs 250/,
  );
  expect(Object.keys(changedOf(layers))).toHaveLength(6);
});

test('chosen parameters only', async () => {
  const selects = (name: string) => name.startsWith('fc1');
  const { layers } = await forgetting(quick, { ...sets(10), selects });
  expect(Object.keys(changedOf(layers))).toEqual(['fc1.weight', 'fc1.bias']);
  await expect(
    forgetting(quick, { ...sets(10), selects: (name) => name.startsWith('fc2') }),
  ).rejects.toMatchObject({ exitCode: 5, message: expect.stringMatching(/before the split/) });
});

describe('the repair', () => {
  test('changes the classifier, and hides the class', async () => {
    const plain = await forgetting({ ...quick, epochs: 5 });
    const given = { ...quick, epochs: 5, supervisedRepair: true };
    const { model, layers, notes, training } = await forgetting(given);
    expect(Object.keys(changedOf(layers)).filter((name) => name.startsWith('fc2'))).toHaveLength(4);
    // The extractor is that of a run without it.
    const [a, b] = [await valuesOf(plain.model), await valuesOf(model)];
    expect(a['fc1.weight']).toBe(b['fc1.weight']);
    expect(a['fc2.0.weight']).not.toBe(b['fc2.0.weight']);
    const forgotten = where(all, zero);
    expect(await accuracy(model, forgotten)).toBeLessThan(await accuracy(plain.model, forgotten));
    expect(notes.join()).toMatch(/repair: loss .* it hides them/);
    expect(training?.at(-1)).toMatchObject({ stage: 'repair', epochs: { length: 5 } });
  });

  test('may look at few labels', async () => {
    const read = new Set<number>();
    const { forget, retain } = sets(10);
    const { dataset } = retain!;
    let repairing = false;
    const watched: TaskData = {
      ...retain!,
      dataset: {
        ...dataset,
        example: (i) => {
          if (repairing) read.add(i);
          return dataset.example(i);
        },
      },
    };
    const given = { ...quick, supervisedRepair: true, repairLabels: 12 };
    await forgetting(given, {
      forget,
      retain: watched,
      // The last pair of steps is made: what is read from here on is read by the repair.
      progress: (stage, done, total) => {
        repairing = stage === 'repair' || (stage === 'unlearn' && done === total);
      },
    });
    expect(read.size).toBeLessThanOrEqual(12);
    await expect(forgetting({ ...given, repairLabels: 1e6 })).rejects.toMatchObject({
      exitCode: 2,
      detail: { expected: 'at most 357' },
    });
  });
});

test('what a repair cannot do is told before anything is done', async () => {
  const progress = (stage: string) => {
    if (stage !== 'representations') throw new Error(`work was done: ${stage}`);
  };
  const { forget, retain } = sets(10);
  for (const [given, context, exitCode] of [
    [{ supervisedRepair: true }, { selects: (name: string) => !name.startsWith('fc2') }, 5],
    [
      { supervisedRepair: true },
      { retain: { ...retain!, dataset: { ...retain!.dataset, label: () => 12 } } },
      6,
    ],
    [{ repairLabels: 5 }, {}, 2],
    [{ repairEpochs: 5 }, {}, 2],
  ] as const)
    await expect(
      forgetting({ ...quick, ...given }, { forget, retain, progress, ...context }),
    ).rejects.toMatchObject({ exitCode });
});

describe('what harms is taken back', () => {
  test('--max-shift', async () => {
    const fast = { ...quick, epochs: 20, unlearnRate: 5e-4, alignRate: 5e-4 };
    const free = await forgetting(fast);
    const shifts = free.training?.at(-1)?.epochs.map(({ keptShift }) => keptShift) ?? [];
    const limit = (shifts[3] + Math.max(...shifts)) / 2;
    const first = shifts.findIndex((shift) => shift > limit);
    const { notes, training, model } = await forgetting({ ...fast, maxShift: limit });
    expect(training?.at(-1)?.epochs).toHaveLength(first);
    expect(notes.join()).toMatch(
      `stopped after epoch ${first + 1} of 20, which is taken back: kept representations`,
    );
    const until = await forgetting({ ...fast, epochs: first });
    expect(await valuesOf(model)).toEqual(await valuesOf(until.model));
  });

  test('--min-retain', async () => {
    const fast = { ...quick, epochs: 12, unlearnRate: 1e-3, alignRate: 1e-4, maxShift: 2 };
    const { notes, model } = await forgetting({ ...fast, minRetain: 0.85 });
    expect(notes.join()).toMatch(/taken back: accuracy on the retain set fell to/);
    expect(await accuracy(model, sets(10).retain!)).toBeGreaterThanOrEqual(85);
    await expect(forgetting({ ...quick, minRetain: 0.999 })).rejects.toMatchObject({
      exitCode: 2,
      message: expect.stringMatching(/asks for more than the model has/),
    });
    const ruin = { ...quick, unlearnRate: 0.1, maxShift: 2, minRetain: 0.8 };
    await expect(forgetting(ruin)).rejects.toMatchObject({
      exitCode: 5,
      message: expect.stringMatching(/first epoch does harm/),
    });
  });

  test('losses that are no numbers', async () => {
    const { detail, exitCode, message } = await forgetting({ ...quick, unlearnRate: 1e30 }).then(
      () => ({}),
      (error) => error,
    );
    expect({ exitCode, message }).toEqual({ exitCode: 5, message: 'Training diverged.' });
    expect(detail.got).toMatch(/NaN at step \d/);
    expect(detail.hint).toMatch(/--unlearn-rate and --align-rate/);
    // The last step of all is seen, too.
    const one = { ...sets(10).forget!, indices: sets(10).forget!.indices.slice(0, 1) };
    await expect(
      forgetting({ ...quick, epochs: 1, alignRate: 1e30 }, { ...sets(10), forget: one }),
    ).rejects.toMatchObject({ exitCode: 5 });
    await expect(forgetting({ ...quick, vaeRate: 1e30 })).rejects.toMatchObject({
      detail: { hint: expect.stringMatching(/--vae-rate/) },
    });
  });
});

describe('checkpoints', () => {
  const path = (name: string) => join(folder, `${name}.safetensors`);

  test('a run that goes on from one ends as an uninterrupted one', async () => {
    const checkpoint = path('state');
    const given = { vaeEpochs: 2, unlearnRate: 2e-4, alignRate: 4e-4, supervisedRepair: true };
    const whole = await forgetting({ ...given, epochs: 5 });
    const interrupted = forgetting(
      { ...given, epochs: 5, checkpoint },
      {
        ...sets(10),
        progress: (stage, done, total) => {
          if (stage === 'unlearn' && done === Math.ceil(0.7 * total))
            throw new Error('interrupted');
        },
      },
    );
    await expect(interrupted).rejects.toThrow('interrupted');
    const resumed = await forgetting({ ...given, epochs: 5, checkpoint, resume: true });
    expect(resumed.notes.join()).toMatch(/resumed after epoch 3/);
    expect(await valuesOf(resumed.model)).toEqual(await valuesOf(whole.model));
    const epochsOf = (run: typeof whole) =>
      run.training?.map(({ stage, epochs }) => [stage, epochs]);
    expect(epochsOf(resumed)).toEqual(epochsOf(whole));

    // More epochs of the same run.
    const longer = await forgetting({ ...given, epochs: 7, checkpoint, resume: true });
    const atOnce = await forgetting({ ...given, epochs: 7 });
    expect(await valuesOf(longer.model)).toEqual(await valuesOf(atOnce.model));
    await expect(
      forgetting({ ...given, epochs: 6, checkpoint, resume: true }),
    ).rejects.toMatchObject({ exitCode: 2, detail: { expected: 'at most 6', got: '7' } });
    // Nothing is left to do.
    const done = await forgetting({ ...given, epochs: 7, checkpoint, resume: true });
    expect(await valuesOf(done.model)).toEqual(await valuesOf(atOnce.model));
  });

  test('rates that were not given are those that it was begun with', async () => {
    const checkpoint = path('rates');
    // Of 80 pairs an epoch: 20 epochs would raise the rates by 2.35, 40 by less.
    const retain = { ...sets(1).retain!, indices: sets(1).retain!.indices.slice(0, 400) };
    const given = { vaeEpochs: 1, batchSize: 5 };
    await forgetting({ ...given, epochs: 1, checkpoint }, { ...sets(1), retain });
    const goesOn = forgetting(
      { ...given, epochs: 60, checkpoint, resume: true },
      {
        ...sets(1),
        retain,
        progress: (stage, done) => {
          if (stage === 'unlearn' && done > 85) throw new Error('it went on');
        },
      },
    );
    await expect(goesOn).rejects.toThrow('it went on');
  });

  test('of another run, damaged or missing: refused', async () => {
    const checkpoint = path('other');
    await forgetting({ ...quick, checkpoint });
    const { forget, retain } = sets(10);
    for (const [given, context, says] of [
      [{ latent: 5 }, sets(10), 'latent 5'],
      [{ unlearnRate: 1e-3 }, sets(10), 'unlearn-rate 0.001'],
      [{ split: '/fc2/fc2.0/Gemm_output_0' }, sets(10), /^model |^split /],
      [{}, { ...sets(10), seed: 1 }, 'seed 1'],
      [{}, { forget, retain: forget }, /^representations /],
      [{}, { forget: retain, retain: forget }, /^representations /],
    ] as const)
      await expect(
        forgetting({ ...quick, ...given, checkpoint, resume: true }, context),
      ).rejects.toMatchObject({
        exitCode: 6,
        message: 'The checkpoint is of another run.',
        detail: { expected: expect.stringMatching(says) },
      });

    const bytes = readFileSync(checkpoint);
    for (const [name, damaged] of [
      ['cut', bytes.subarray(0, bytes.length - 9)],
      ['empty', Buffer.alloc(0)],
      [
        'state',
        Buffer.from(bytes.toString('latin1').replace('\\"epochs\\"', '\\"epoch_\\"'), 'latin1'),
      ],
      [
        'format',
        Buffer.from(bytes.toString('latin1').replace('resect.laf', 'resect.LAF'), 'latin1'),
      ],
    ] as const) {
      writeFileSync(path(name), damaged);
      await expect(
        forgetting({ ...quick, checkpoint: path(name), resume: true }),
      ).rejects.toMatchObject({ exitCode: 6 });
    }
    // Whole as a file, but not as a state.
    const store = await openSafetensors(checkpoint);
    for (const [name, change] of [
      ['vaes.all/encoder.linear1.bias', () => []],
      ['alignment.second/fc1.weight', () => []],
      ['values/fc1.bias', (tensor: FloatTensor) => [{ ...tensor, shape: [63] }]],
    ] as const) {
      const tensors = store.tensors.flatMap((tensor) =>
        tensor.name === name ? change(tensor) : tensor,
      );
      const read = async (of: string) => {
        const length = tensors.find((tensor) => tensor.name === of)?.shape[0] ?? 0;
        return (await store.read(of)).subarray(0, length);
      };
      await writeSafetensors(path('misfit'), { metadata: store.metadata, tensors, read }, true);
      await expect(
        forgetting({ ...quick, checkpoint: path('misfit'), resume: true }),
      ).rejects.toMatchObject({
        exitCode: 6,
        message: 'The checkpoint does not fit the model.',
        detail: { where: expect.stringContaining(name) },
      });
    }
    await expect(
      forgetting({ ...quick, checkpoint: path('none'), resume: true }),
    ).rejects.toMatchObject({ exitCode: 7 });
    await expect(forgetting({ ...quick, resume: true })).rejects.toMatchObject({
      exitCode: 2,
      detail: { expected: '--checkpoint FILE' },
    });
    expect(existsSync(path('none'))).toBe(false);
  });
});

test('parameters behind an op without gradients are left as they are, and told', async () => {
  const [hidden, steps, width] = [12, 3, 4];
  const proto = protoModel({
    input: [value('x', ['n', steps, width])],
    initializer: [
      weight('lstm.w', [1, 4 * hidden, width]),
      weight('lstm.r', [1, 4 * hidden, hidden]),
      weight('a', [hidden, 16]),
      weight('b', [16, 5]),
      ints('first', 0),
    ],
    node: [
      node('Transpose', ['x'], ['t'], { perm: [1, 0, 2] }),
      node('LSTM', ['t', 'lstm.w', 'lstm.r'], ['', 'h'], { hidden_size: hidden }),
      node('Squeeze', ['h', 'first'], ['last']),
      node('MatMul', ['last', 'a'], ['e']),
      node('MatMul', ['e', 'b'], ['y']),
    ],
    output: [value('y', ['n', 5])],
  });
  const set = (from: number): TaskData => ({
    task: 'none',
    indices: [0, 1, 2, 3, 4],
    dataset: {
      path: 'drawn',
      task: 'none',
      length: 5,
      files: [],
      example: async (i) => ({
        inputs: {
          x: {
            dtype: 'float32',
            dims: [steps, width],
            data: Float32Array.from({ length: steps * width }, (_, k) => Math.sin(from + i + k)),
          },
        },
      }),
    },
  });
  const model = parseModel(encodeModel(proto));
  const { layers } = await laf.apply(
    model,
    laf.parameters.parse({ epochs: 1, vaeEpochs: 1 }),
    around({ forget: set(0), retain: set(7) }),
  );
  expect(layers.map(({ name, status, reason }) => [name, status, reason])).toEqual([
    ['lstm.w', 'skipped', 'no gradient through LSTM'],
    ['lstm.r', 'skipped', 'no gradient through LSTM'],
    ['a', 'changed', undefined],
    ['b', 'skipped', 'in the classifier'],
  ]);
});
