import fc from 'fast-check';
import type { Batch, TensorData } from '../../src/data/index.js';
import { ResectError } from '../../src/errors.js';
import { logProbabilities, taskMetric } from '../../src/evaluate/metrics.js';

const float = (dims: number[], values: ArrayLike<number>): TensorData => ({
  dtype: 'float32',
  dims,
  data: Float32Array.from(values),
});

const batch = (labels: Batch['labels'], more: Partial<Batch> = {}): Batch => ({
  feeds: {},
  labels,
  size: labels.length,
  ...more,
});

const codeOf = (make: () => unknown): number => {
  try {
    make();
  } catch (error) {
    if (error instanceof ResectError) return error.exitCode;
    throw error;
  }
  throw new Error('nothing was thrown');
};

/** -log softmax(row)[index], by the definition. */
function crossEntropy(row: number[], index: number): number {
  const shifted = row.map((v) => Math.exp(v - Math.max(...row)));
  return -Math.log(shifted[index] / shifted.reduce((a, b) => a + b, 0));
}

/** What is taken for probabilities. */
const isDistribution = (row: number[]) =>
  row.every((v) => v >= 0) && Math.abs(row.reduce((n, v) => n + v, 0) - 1) < 1e-3;

describe('classification', () => {
  const evaluate = (rows: number[][], labels: number[]) => {
    const metric = taskMetric('classification', ['logits'])!;
    for (const [i, row] of rows.entries())
      metric.add({ logits: float([1, row.length], row) }, batch([labels[i]]));
    return metric.result();
  };

  const logits = fc.integer({ min: 2, max: 15 }).chain((classes) =>
    fc.array(
      fc.tuple(
        fc.array(
          fc.integer({ min: -80, max: 80 }).map((v) => v / 8),
          { minLength: classes, maxLength: classes },
        ),
        fc.nat(classes - 1),
      ),
      { minLength: 1, maxLength: 20 },
    ),
  );

  test('property: accuracy, top-5 and loss are what the definitions say', () =>
    fc.assert(
      fc.property(logits, (examples) => {
        const rows = examples.map(([row]) => row);
        fc.pre(!rows.some(isDistribution));
        const labels = examples.map(([, label]) => label);
        const { accuracy, top5, loss } = evaluate(rows, labels);
        const order = (row: number[]) =>
          row
            .map((v, i) => [v, i])
            .sort(([a, i], [b, j]) => b - a || i - j)
            .map(([, i]) => i);
        const share = (hit: (i: number) => boolean) =>
          rows.filter((_, i) => hit(i)).length / rows.length;
        expect(accuracy).toBeCloseTo(
          share((i) => order(rows[i])[0] === labels[i]),
          12,
        );
        if (rows[0].length > 10)
          expect(top5).toBeCloseTo(
            share((i) => order(rows[i]).slice(0, 5).includes(labels[i])),
            12,
          );
        else expect(top5).toBeUndefined();
        const mean = rows.reduce((n, row, i) => n + crossEntropy(row, labels[i]), 0) / rows.length;
        expect(loss).toBeCloseTo(mean, 9);
      }),
    ));

  test('probabilities are taken as such', () => {
    const p = [0.125, 0.25, 0.625];
    expect(evaluate([p], [2]).loss).toBeCloseTo(-Math.log(0.625), 12);
    expect(evaluate([[1, 0, 0]], [1]).loss).toBeCloseTo(-Math.log(1e-12), 9);
  });

  test('logits are not: they have negative entries, or another sum', () => {
    expect(evaluate([[0.5, 0.8]], [0]).loss).toBeCloseTo(crossEntropy([0.5, 0.8], 0), 6);
    expect(evaluate([[-1, 2]], [0]).loss).toBeCloseTo(crossEntropy([-1, 2], 0), 6);
  });

  test('large logits do not overflow', () => {
    expect(evaluate([[1e30, 0]], [0])).toEqual({ accuracy: 1, loss: 0 });
    expect(evaluate([[1000, 999]], [1]).loss).toBeCloseTo(crossEntropy([1, 0], 1), 9);
  });

  test('of equal scores the first class wins', () => {
    expect(
      evaluate(
        [
          [1, 1],
          [1, 1],
        ],
        [0, 1],
      ).accuracy,
    ).toBe(0.5);
  });

  test('a row with NaN is never right, wherever it is, and the loss is NaN', () => {
    for (const row of [
      [Number.NaN, 1],
      [1, Number.NaN],
      [Number.NaN, Number.NaN],
    ])
      for (const label of [0, 1])
        expect(evaluate([row], [label])).toEqual({ accuracy: 0, loss: Number.NaN });
  });

  test('a class that is ruled out by -Infinity', () => {
    expect(evaluate([[Number.NEGATIVE_INFINITY, 0, 0]], [1]).loss).toBeCloseTo(Math.log(2), 12);
    expect(evaluate([[Number.NEGATIVE_INFINITY, 0]], [0]).loss).toBe(Number.POSITIVE_INFINITY);
  });

  test('rows that only fill a frozen batch do not count', () => {
    const metric = taskMetric('classification', ['y'])!;
    metric.add({ y: float([3, 2], [1, 0, 1, 0, 1, 0]) }, batch([0], { size: 1 }));
    expect(metric.result().accuracy).toBe(1);
    const rest = taskMetric('classification', ['y'])!;
    rest.add({ y: float([2, 2], [1, 0, 0, 1]) }, batch([0, 0], { size: 2 }));
    expect(rest.result().accuracy).toBe(0.5);
  });

  test('maps of one position, half floats and doubles', () => {
    const of = (y: TensorData) => {
      const metric = taskMetric('classification', ['y'])!;
      metric.add({ y }, batch([1]));
      return metric.result();
    };
    expect(of(float([1, 3, 1, 1], [0, 2, 1])).accuracy).toBe(1);
    const half: TensorData = { dtype: 'float16', dims: [1, 2], data: Uint16Array.of(0, 0x4000) };
    expect(of(half).loss).toBeCloseTo(crossEntropy([0, 2], 1), 12);
    const double: TensorData = { dtype: 'float64', dims: [1, 2], data: Float64Array.of(0, 2) };
    expect(of(double).loss).toBeCloseTo(crossEntropy([0, 2], 1), 12);
  });

  test('the prediction is the first output of floats', () => {
    const metric = taskMetric('classification', ['label', 'scores', 'features'])!;
    const label: TensorData = { dtype: 'int64', dims: [1], data: BigInt64Array.of(1n) };
    metric.add(
      { features: float([1, 2], [1, 0]), scores: float([1, 2], [0, 1]), label },
      batch([1]),
    );
    expect(metric.result().accuracy).toBe(1);
  });

  test('labels that are missing, no number or out of range: exit 6', () => {
    const add = (label: Batch['labels'][number]) => () =>
      taskMetric('classification', ['y'])!.add({ y: float([1, 2], [0, 1]) }, batch([label]));
    for (const label of [undefined, float([1], [1]), 2, -1]) expect(codeOf(add(label))).toBe(6);
    const label: TensorData = { dtype: 'int64', dims: [1], data: BigInt64Array.of(1n) };
    expect(codeOf(() => taskMetric('classification', ['y'])!.add({ y: label }, batch([1])))).toBe(
      6,
    );
  });
});

describe('language model', () => {
  const ids = (...tokens: number[]): TensorData => ({
    dtype: 'int64',
    dims: [tokens.length],
    data: BigInt64Array.from(tokens, BigInt),
  });

  test('perplexity is that of the tokens after the first, from what stands before each', () => {
    const metric = taskMetric('lm', ['logits'])!;
    const scores = Array.from({ length: 2 * 4 * 3 }, (_, i) => Math.sin(i) * 3);
    const tokens = [
      [0, 2, 1, 1],
      [1, 0, 2],
    ];
    metric.add(
      { logits: float([2, 4, 3], scores) },
      batch(
        tokens.map((t) => ids(...t)),
        { tokens: [4, 3] },
      ),
    );
    let loss = 0;
    for (const [b, sequence] of tokens.entries())
      for (let t = 1; t < sequence.length; t++) {
        const at = (b * 4 + t - 1) * 3;
        loss += crossEntropy(scores.slice(at, at + 3), sequence[t]);
      }
    expect(metric.result().loss).toBeCloseTo(loss / 5, 6);
    expect(metric.result().perplexity).toBeCloseTo(Math.exp(loss / 5), 5);
  });

  test('no other integer input is taken for the tokens', () => {
    const metric = taskMetric('lm', ['logits'])!;
    const mask: TensorData = { dtype: 'int64', dims: [1, 2], data: BigInt64Array.of(1n, 1n) };
    const input: TensorData = { dtype: 'int64', dims: [1, 2], data: BigInt64Array.of(0n, 2n) };
    const feeds = { attention_mask: mask, input_ids: input };
    metric.add(
      { logits: float([1, 2, 3], [0, 0, 9, 0, 0, 0]) },
      batch([ids(0, 2)], { feeds, tokens: [2] }),
    );
    expect(metric.result().loss).toBeCloseTo(crossEntropy([0, 0, 9], 2), 6);
  });

  test('batches add up', () => {
    const [one, two] = [taskMetric('lm', ['y'])!, taskMetric('lm', ['y'])!];
    const [a, b] = [
      [1, 2, 3, 4],
      [4, 3, 2, 1],
    ];
    one.add({ y: float([2, 2, 2], [...a, ...b]) }, batch([ids(0, 1), ids(1, 0)]));
    two.add({ y: float([1, 2, 2], a) }, batch([ids(0, 1)]));
    two.add({ y: float([1, 2, 2], b) }, batch([ids(1, 0)]));
    expect(one.result().loss).toBeCloseTo(two.result().loss, 12);
  });

  test('outputs and labels that do not pair, and tokens beyond the vocabulary: exit 6', () => {
    const add = (y: TensorData, label: Batch['labels'][number]) => () =>
      taskMetric('lm', ['y'])!.add({ y }, batch([label]));
    expect(codeOf(add(float([1, 3], [1, 2, 3]), ids(0, 1)))).toBe(6);
    expect(codeOf(add(float([1, 2, 3], new Array(6).fill(0)), 1))).toBe(6);
    expect(codeOf(add(float([1, 2, 3], new Array(6).fill(0)), ids(0, 1, 2)))).toBe(6);
    expect(codeOf(add(float([1, 2, 3], new Array(6).fill(0)), ids(0, 3)))).toBe(6);
  });
});

describe('regression', () => {
  const values = fc.integer({ min: -1000, max: 1000 }).map((v) => v / 16);

  test('property: rmse, mae and r2 are what the definitions say', () =>
    fc.assert(
      fc.property(fc.array(fc.tuple(values, values), { minLength: 2, maxLength: 30 }), (pairs) => {
        const metric = taskMetric('regression', ['y'])!;
        for (const [y, target] of pairs) metric.add({ y: float([1, 1], [y]) }, batch([target]));
        const { rmse, mae, r2 } = metric.result();
        const n = pairs.length;
        const errors = pairs.map(([y, t]) => y - t);
        const mean = pairs.reduce((s, [, t]) => s + t, 0) / n;
        const squares = errors.reduce((s, e) => s + e * e, 0);
        const spread = pairs.reduce((s, [, t]) => s + (t - mean) ** 2, 0);
        fc.pre(spread > 0.01);
        expect(rmse).toBeCloseTo(Math.sqrt(squares / n), 6);
        expect(mae).toBeCloseTo(errors.reduce((s, e) => s + Math.abs(e), 0) / n, 9);
        const explained = 1 - squares / spread;
        expect(Math.abs(r2 - explained)).toBeLessThan(1e-6 * (1 + Math.abs(explained)));
      }),
    ));

  test('several targets', () => {
    const metric = taskMetric('regression', ['y'])!;
    metric.add({ y: float([1, 2], [1, 2]) }, batch([float([2], [1, 4])]));
    expect(metric.result()).toMatchObject({ rmse: Math.sqrt(2), mae: 1 });
  });

  test('targets that do not fit: exit 6', () => {
    const add = (label: Batch['labels'][number]) => () =>
      taskMetric('regression', ['y'])!.add({ y: float([1, 2], [1, 2]) }, batch([label]));
    for (const label of [undefined, 1, float([3], [1, 2, 3])]) expect(codeOf(add(label))).toBe(6);
  });
});

test('no task, no metric', () => expect(taskMetric('none', ['y'])).toBeUndefined());

test('log probabilities add up to one', () => {
  const logs = logProbabilities(Float32Array.of(3, -4, 100, 99));
  expect(logs.reduce((n, l) => n + Math.exp(l), 0)).toBeCloseTo(1, 12);
});
