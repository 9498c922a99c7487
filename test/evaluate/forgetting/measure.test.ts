import { gradients } from '../../../src/autodiff/gradients.js';
import type { Dataset, Task } from '../../../src/data/index.js';
import { accuracyOf } from '../../../src/evaluate/forgetting/accuracy.js';
import { collapse } from '../../../src/evaluate/forgetting/collapse.js';
import { forgetEverything } from '../../../src/evaluate/forgetting/incompetent.js';
import {
  type Forgetting,
  type ForgettingSets,
  measureForgetting,
} from '../../../src/evaluate/forgetting/measure.js';
import { checkReference } from '../../../src/evaluate/forgetting/reference.js';
import {
  encodeModel,
  type ModelProto,
  type NodeProto,
  parseModel,
  readTensorFloat32,
} from '../../../src/onnx/index.js';
import { classTable, forgettingTable } from '../../../src/report/forgetting.js';
import { openPart } from '../../../src/runtime/part.js';
import { Session } from '../../../src/runtime/session.js';
import { floats, model, node, value } from '../../support/protos.js';

/** The scores of an example are the example itself, times `gain`. */
const scores = (width: number, gain: number[], more: NodeProto[] = [], output = 'y'): ModelProto =>
  model({
    node: [node('MatMul', ['x', 'gain'], [more.length > 0 ? 'z' : output]), ...more],
    initializer: [floats('gain', [width, width], diagonal(gain))],
    input: [value('x', ['batch', width])],
    output: [value(output, ['batch', width])],
  });
function diagonal(values: number[]): Float32Array {
  const matrix = new Float32Array(values.length ** 2);
  for (const [i, v] of values.entries()) matrix[i * (values.length + 1)] = v;
  return matrix;
}

const softmax = [node('Softmax', ['z'], ['y'], { axis: 1 })];

/** Rows as examples. */
function dataset(rows: number[][], labels: number[], task: Task = 'classification'): Dataset {
  return {
    path: 'rows',
    task,
    length: rows.length,
    files: ['rows'],
    example: async (i) => ({
      inputs: {
        x: { dtype: 'float32', dims: [rows[i].length], data: Float32Array.from(rows[i]) },
      },
      label: labels[i],
    }),
    label: (i) => labels[i],
  };
}
const set = (...given: Parameters<typeof dataset>) => ({
  dataset: dataset(...given),
  indices: given[0].map((_, i) => i),
});

async function measured(
  models: {
    before: ModelProto;
    after: ModelProto;
    reference?: ModelProto;
    incompetent?: ModelProto;
  },
  sets: ForgettingSets,
  task: Task = 'classification',
): Promise<Forgetting> {
  const sessions = Object.fromEntries(
    await Promise.all(
      Object.entries(models).map(async ([name, proto]) => [
        name,
        await Session.open(encodeModel(proto), { threads: 1 }),
      ]),
    ),
  );
  try {
    return await measureForgetting(sessions, sets, task, () => {});
  } finally {
    for (const session of Object.values(sessions)) await (session as Session).release();
  }
}

const one = (at: number, height = 2) => [0, 1, 2].map((i) => (i === at ? height : 0));
const good = scores(3, [1, 1, 1]);
/** Never says class 2. */
const blind = scores(3, [1, 1, -1]);

describe('classes', () => {
  const sets = {
    forget: set([one(2), one(2)], [2, 2]),
    retain: set([one(0), one(1), one(1)], [0, 1, 0]),
    test: set([one(0), one(1), one(2), one(2)], [0, 1, 2, 0]),
  };

  test('a request for whole classes is told apart, on the test set too', async () => {
    const { classes, before, after, samples } = await measured(
      { before: good, after: blind },
      sets,
    );
    expect({ classes, samples }).toEqual({
      classes: [2],
      samples: { forget: 2, retain: 3, test: 4 },
    });
    expect(before).toMatchObject({
      forget: { accuracy: 1 },
      retain: { accuracy: 2 / 3 },
      test: { accuracy: 3 / 4 },
      testForget: { accuracy: 1 },
      testRetain: { accuracy: 2 / 3 },
      classes: { 0: 1 / 2, 1: 1, 2: 1 },
    });
    // The last test example has equal scores of 0 for the classes 0 and 1: the first of them counts.
    expect(after).toMatchObject({
      forget: { accuracy: 0 },
      testForget: { accuracy: 0 },
      testRetain: { accuracy: 1 },
      classes: { 0: 1, 1: 1, 2: 0 },
    });
  });

  test('a class that is forgotten in part is no such request; its accuracy is over both sets', async () => {
    const { classes, before } = await measured(
      { before: blind, after: blind },
      { forget: set([one(0), one(2)], [0, 2]), retain: set([one(2), one(2), one(1)], [0, 2, 1]) },
    );
    expect(classes).toBeUndefined();
    expect(before.classes).toEqual({ 0: 1, 1: 1, 2: 0 });
    expect(before.testForget).toBeUndefined();
  });

  test('what a test set has no examples of is not told', async () => {
    const others = { ...sets, test: set([one(0)], [0]) };
    const { before } = await measured({ before: good, after: blind }, others);
    expect(before).toMatchObject({ testRetain: { accuracy: 1 } });
    expect(before).not.toHaveProperty('testForget');
  });

  test('equal scores count as metrics count them', async () => {
    const dead = scores(3, [0, 0, 0]);
    const { after } = await measured({ before: good, after: dead }, sets);
    expect(after.classes).toEqual({ 0: 1, 1: 0, 2: 0 });
    expect(after.test?.accuracy).toBe(2 / 4);
    expect(after.forget.accuracy).toBe(0);
    const trained = await gradients(parseModel(encodeModel(dead)), { loss: 'cross-entropy' });
    const shares = [sets.forget, sets.test].map((s) =>
      accuracyOf(trained, { ...s, task: 'classification' }),
    );
    expect(await Promise.all(shares)).toEqual([0, 2 / 4]);
    await trained.release();
  });
});

describe('logits or probabilities', () => {
  // Any one of the rows could be a distribution.
  const rows = [one(0, 1), [0.5, 0.25, 0.25], [3, 0, 0]];
  const forget = set(rows, [0, 0, 0]);
  const options = { forget, retain: set(rows, [1, 1, 1]), test: set(rows, [1, 1, 1]) };
  const loss = ([a, b, c]: number[]) => Math.log(1 + Math.exp(b - a) + Math.exp(c - a));

  test('is decided once for a model, not for a batch', async () => {
    // ZRF sees each batch apart; with itself it is 1, with a softmax of the same too.
    const { before } = await measured(
      {
        before: good,
        after: scores(3, [1, 1, 1], softmax),
        incompetent: scores(3, [1, 1, 1], softmax),
      },
      options,
    );
    expect(before.zrf).toBeCloseTo(1, 5);
  });

  test('a softmax at the end changes nothing', async () => {
    const models = { before: good, after: scores(3, [1, 1, 1], softmax), reference: good };
    const { before, after } = await measured(models, options);
    expect(after.activationDistance).toBeCloseTo(0, 5);
    expect(after.klToReference).toBeCloseTo(0, 5);
    expect(after.forget.loss).toBeCloseTo(rows.reduce((n, row) => n + loss(row), 0) / 3, 5);
    expect(before.tugOfWar).toBe(1);
  });
});

test('membership by entropy and by loss', async () => {
  const many = (row: number[], n = 25) => Array.from({ length: n }, () => row);
  const labels = (label: number, n = 25) => new Array<number>(n).fill(label);
  const { before, after } = await measured(
    { before: scores(2, [5, 5]), after: scores(2, [5, -5]) },
    {
      // Sure and right; sure of a wrong class; not sure.
      forget: set(many([0, 2]), labels(1)),
      retain: set(many([2, 0]), labels(0)),
      test: set(many([0.1, 0]), labels(0)),
    },
  );
  expect(before.membership).toMatchObject({ forgetRate: 1, attackAuc: 1, forgetAuc: 1 });
  expect(before.membershipByLoss).toMatchObject({ forgetRate: 1, attackAuc: 1 });
  // Now as sure as before, but wrong.
  expect(after.membership).toMatchObject({ forgetRate: 1 });
  expect(after.membershipByLoss).toMatchObject({ forgetRate: 0, forgetAuc: 0 });
});

test('too few examples for an attack', async () => {
  const few = set([one(0)], [0]);
  const { before } = await measured(
    { before: good, after: good },
    { forget: few, retain: few, test: few },
  );
  expect(before).toMatchObject({ membership: null, membershipByLoss: null });
});

describe('regressions', () => {
  const line = (gain: number) => scores(1, [gain]);
  const sets = {
    forget: set([[1], [2], [3]], [1, 2, 3], 'regression'),
    retain: set([[4]], [4], 'regression'),
  };

  test('Wasserstein distance to the retrained model', async () => {
    const models = { before: line(1), after: line(3), reference: line(2) };
    const { before, after, classes } = await measured(models, sets, 'regression');
    expect(before.wasserstein).toBeCloseTo(2, 6);
    expect(after.wasserstein).toBeCloseTo(2, 6);
    expect(classes).toBeUndefined();
    expect(before).toMatchObject({ forget: { rmse: 0 } });
    expect(before).not.toHaveProperty('tugOfWar');
    expect(before).not.toHaveProperty('zrf');
  });

  test('are told of without accuracies', async () => {
    const result = await measured({ before: line(1.1), after: line(2) }, sets, 'regression');
    expect(JSON.stringify(forgettingTable(result))).not.toMatch(/accuracy|class/);
    expect(classTable(result)).toBeUndefined();
    expect(collapse(result)).toEqual([
      expect.stringMatching(/COLLAPSED: its root mean squared error/),
    ]);
    const none = await measured({ before: line(1.1), after: line(1.1) }, sets, 'regression');
    expect(collapse(none)).toEqual([expect.stringMatching(/nothing was forgotten/)]);
  });
});

test('a random twin knows nothing, and ZRF is between 1 - ln 2 and 1', async () => {
  const made = parseModel(encodeModel(scores(3, [40, 40, 40])));
  forgetEverything(made, 7);
  const [tensor] = made.proto.graph!.initializer;
  const weights = await readTensorFloat32(made, tensor);
  expect(Math.max(...weights)).toBeLessThanOrEqual(1 / Math.sqrt(3));
  const { bytes } = await openPart(made, made.proto);
  const rows = Array.from({ length: 40 }, (_, i) => one(i % 3));
  const { before, after } = await measured(
    {
      before: scores(3, [40, 40, 40]),
      after: scores(3, [0.01, 0.01, 0.01]),
      incompetent: parseModel(bytes).proto,
    },
    {
      forget: set(
        rows,
        rows.map((_, i) => i % 3),
      ),
    },
  );
  for (const { zrf } of [before, after]) {
    expect(zrf).toBeGreaterThanOrEqual(1 - Math.LN2);
    expect(zrf).toBeLessThanOrEqual(1);
  }
  expect(after.zrf).toBeGreaterThan(before.zrf!);
});

describe('a reference', () => {
  const forget = set([one(0)], [0]);

  test('may name its output otherwise', async () => {
    const models = { before: good, after: blind, reference: scores(3, [1, 1, 1], [], 'logits') };
    const { before } = await measured(models, { forget });
    expect(before.activationDistance).toBe(0);
  });

  const wide = model({
    node: [node('Concat', ['x', 'x'], ['y'], { axis: 1 })],
    input: [value('x', ['batch', 3])],
    output: [value('y', ['batch', 'classes'])],
  });

  test('with other classes is refused, when it is run at the latest', async () => {
    await expect(
      measured({ before: good, after: good, reference: wide }, { forget }),
    ).rejects.toMatchObject({
      exitCode: 5,
      message: expect.stringContaining('The reference model puts out something else'),
      detail: { expected: '3 classes', got: '6' },
    });
  });

  const port = (name: string, dims: (number | string)[], dtype = 'float32') => ({
    name,
    dims,
    dtype,
  });
  const own = { inputs: [port('x', ['batch', 3])], outputs: [port('y', ['batch', 10])] };
  test.each([
    ['takes other inputs', { ...own, inputs: [port('image', ['batch', 3])] }, /other inputs/],
    ['takes other shapes', { ...own, inputs: [port('x', ['batch', 4])] }, /other inputs/],
    ['takes other types', { ...own, inputs: [port('x', ['batch', 3], 'float16')] }, /other inputs/],
    ['puts out another number', { ...own, outputs: [port('y', ['batch', 7])] }, /something else/],
    ['puts out no scores', { ...own, outputs: [port('y', ['batch'], 'int64')] }, /something else/],
  ])('that %s is refused before', (_, reference, says) => {
    expect(() => checkReference(own, reference)).toThrow(says);
  });
  test.each([
    ['the same', own],
    ['in half precision at its end', { ...own, outputs: [port('z', ['n', 10], 'float16')] }],
    ['of unknown rank', { ...own, outputs: [port('z', [])] }],
  ])('that is %s is not', (_, reference) => {
    expect(() => checkReference(own, reference)).not.toThrow();
  });
});

test('of many classes those are shown that were forgotten, and that changed most', () => {
  const classes = (changed: Record<string, number>) =>
    Object.fromEntries(Array.from({ length: 30 }, (_, i) => [i, changed[i] ?? 0.9]));
  const result: Forgetting = {
    task: 'classification',
    samples: { forget: 1 },
    classes: [29],
    before: { forget: {}, classes: classes({}) },
    after: { forget: {}, classes: classes({ 25: 0.5, 29: 0.8 }) },
  };
  const { header, rows } = classTable(result)!;
  expect(header[0]).toBe('accuracy of class (20 of 30)');
  expect(rows).toHaveLength(20);
  expect(rows.map(([label]) => label)).toEqual(expect.arrayContaining(['25', '29', '0']));
});

describe('warnings', () => {
  const forgetting = (before: Partial<Forgetting['before']>, after: Partial<Forgetting['after']>) =>
    collapse({
      task: 'lm',
      samples: { forget: 1 },
      before: { forget: { loss: 1 }, ...before },
      after: { forget: { loss: 2 }, ...after },
    });
  test.each([
    [
      'a retain set that is lost',
      { retain: { accuracy: 0.9 } },
      { retain: { accuracy: 0.5 } },
      /lost 40.0 points/,
    ],
    [
      'a perplexity that rises',
      { test: { perplexity: 10 } },
      { test: { perplexity: 20 } },
      /perplexity rose 2.0 times/,
    ],
    [
      'an output that is no number',
      { test: { perplexity: 10 } },
      { test: { perplexity: Number.NaN } },
      /perplexity/,
    ],
    ['a forget set that is known', {}, { forget: { loss: 0.9 } }, /nothing was forgotten/],
  ])('%s', (_, before, after, says) => {
    expect(forgetting(before, after)).toEqual([expect.stringMatching(says)]);
  });
  test('none', () => {
    expect(forgetting({ retain: { accuracy: 0.9 } }, { retain: { accuracy: 0.85 } })).toEqual([]);
  });
});

describe('sets without labels', () => {
  const rows = [one(0), one(1), one(2), one(2)];
  const unlabelled = { ...set(rows, []), task: 'none' as const };
  const labelled = set(
    Array.from({ length: 30 }, (_, i) => one(i % 2)),
    Array.from({ length: 30 }, (_, i) => i % 2),
  );

  test('are compared with what the model put out before', async () => {
    const { before, after, classes } = await measured(
      { before: good, after: blind },
      { forget: unlabelled, retain: labelled, test: labelled },
    );
    expect(classes).toBeUndefined();
    expect(before.forget).toEqual({ agreement: 1, kl: 0, cosine: 1, relativeError: 0 });
    expect(after.forget.agreement).toBe(0.5);
    expect(after.retain).toMatchObject({ accuracy: 1 });
    expect(after.classes).toEqual({ 0: 1, 1: 1 });
    expect(after.membershipByLoss).toBeNull();
  });

  test('have entropies, which tell members', async () => {
    const many = {
      ...set(
        Array.from({ length: 25 }, (_, i) => one(i % 3)),
        [],
      ),
      task: 'none' as const,
    };
    const { after } = await measured(
      { before: good, after: blind },
      { forget: many, retain: many, test: labelled },
    );
    expect(after.membership).toMatchObject({ forgetRate: expect.any(Number) });
    expect(after.membershipByLoss).toBeNull();
  });

  test('where there are no classes, by direction and size', async () => {
    const { after } = await measured(
      { before: good, after: blind },
      { forget: unlabelled },
      'none',
    );
    expect(Object.keys(after.forget)).toEqual(['cosine', 'relativeError']);
  });

  const told = (agreement: number, kept = 1): string[] =>
    collapse({
      task: 'none',
      samples: { forget: 1 },
      before: { forget: { agreement: 1 }, retain: { agreement: 1 } },
      after: { forget: { agreement }, retain: { agreement: kept } },
    });

  test('what did not change is no success, what was lost is told', () => {
    expect(told(0.995)).toEqual([expect.stringMatching(/no measurable change/)]);
    expect(told(0.3)).toEqual([]);
    expect(told(0.3, 0.8)).toEqual([
      expect.stringMatching(/COLLAPSED: it lost 20.0 points of agreement with what it was/),
    ]);
  });

  test('a test set that may hold what was to be forgotten is no measure of collapse', () => {
    const sides = (retain: number) =>
      collapse({
        task: 'classification',
        samples: { forget: 1 },
        before: { forget: { agreement: 1 }, retain: { agreement: 1 }, test: { accuracy: 0.9 } },
        after: { forget: { agreement: 0 }, retain: { agreement: retain }, test: { accuracy: 0.7 } },
      });
    expect(sides(0.99)).toEqual([]);
    expect(sides(0.5)).toEqual([expect.stringMatching(/COLLAPSED: it lost 50.0 points of agree/)]);
  });

  test('nor is a loss that hardly rose', () => {
    const moved = (accuracy: number, loss: number, classes?: number[]) =>
      collapse({
        task: 'classification',
        classes,
        samples: { forget: 100 },
        before: { forget: { accuracy: 0.93, loss: 0.2 } },
        after: { forget: { accuracy, loss } },
      });
    expect(moved(0.925, 0.205)).toEqual([expect.stringMatching(/no measurable change/)]);
    expect(moved(0.925, 0.3)).toEqual([]);
    expect(moved(0.9, 0.205)).toEqual([]);
    expect(moved(0.93, 0.2)).toEqual([expect.stringMatching(/nothing was forgotten/)]);
    // A class that is still recognised was not forgotten, however unsure the model has become.
    expect(moved(0.925, 0.3, [3])).toEqual([expect.stringMatching(/no measurable change/)]);
  });
});
