import type { Target } from '../../src/autodiff/gradients.js';
import { type LossName, lossNames } from '../../src/autodiff/losses.js';
import { int, makeNode } from '../../src/graph/build.js';
import type { ModelProto } from '../../src/onnx/index.js';
import type { Feeds } from '../../src/runtime/session.js';
import { node } from '../support/protos.js';
import { gradientError, toNumbers } from './golden.js';
import {
  differences,
  float64,
  int64,
  network,
  noise,
  scores,
  stored,
  withGradients,
} from './small-models.js';

const rows = 4;
const classes = 5;
const x = float64([rows, 3]);
const labels = int64([rows], [1, 0, 4, 1]);
const weight = Float64Array.of(0.5, -1, 0, 2);

/** Positive, with rows that add up to 1. */
function distributions(seed: number) {
  const raw = noise(rows * classes, seed).map((v) => v + 1.1);
  const sums = raw.map((_, i) => {
    const row = Math.floor(i / classes) * classes;
    return raw.subarray(row, row + classes).reduce((a, b) => a + b, 0);
  });
  return { ...float64([rows, classes]), data: raw.map((v, i) => v / sums[i]) };
}

const softmax = () => makeNode('Softmax', ['z'], 'y', [int('axis', -1)]);
const halves = {
  ...float64([rows, classes]),
  data: noise(rows * classes, 5).map((v) => v / 2 + 0.5),
};

interface LossCase {
  target?: Target['target'];
  model?: ModelProto;
  /** l of each row, from z [rows, classes]. */
  rows: (z: number[], row: number) => number;
}

const logSoftmax = (z: number[]) => {
  const top = Math.max(...z);
  const log = top + Math.log(z.reduce((s, v) => s + Math.exp(v - top), 0));
  return z.map((v) => v - log);
};
const label = (row: number) => Number((labels.data as BigInt64Array)[row]);
const targetRow = (target: { data: ArrayLike<number | bigint> }, row: number) =>
  Array.from(target.data, Number).slice(row * classes, (row + 1) * classes);
const mean = (v: number[]) => v.reduce((a, b) => a + b, 0) / v.length;
const dot = (a: number[], b: number[]) => a.reduce((s, v, i) => s + v * b[i], 0);

const truth = float64([rows, classes], 7);
const shares = distributions(6);

const cases: Record<LossName, LossCase> = {
  'cross-entropy': { target: labels, rows: (z, row) => -logSoftmax(z)[label(row)] },
  likelihood: {
    target: labels,
    // Probabilities by a way that is no Softmax at the end.
    model: network(
      [
        node('MatMul', ['x', 'w'], ['z']),
        makeNode('Softmax', ['z'], 'p'),
        makeNode('Clip', ['p'], 'y'),
      ],
      [stored('w', [3, classes])],
    ),
    rows: (p, row) => -Math.log(p[label(row)]),
  },
  binary: {
    target: halves,
    rows: (z, row) => {
      const t = targetRow(halves, row);
      return mean(z.map((v, i) => Math.log1p(Math.exp(v)) - v * t[i]));
    },
  },
  mse: {
    target: truth,
    rows: (z, row) => mean(z.map((v, i) => (v - targetRow(truth, row)[i]) ** 2)),
  },
  kl: {
    target: shares,
    rows: (z, row) => {
      const [p, logq] = [targetRow(shares, row), logSoftmax(z)];
      return p.reduce((s, v, i) => s + v * (Math.log(v) - logq[i]), 0);
    },
  },
  cosine: {
    target: truth,
    rows: (z, row) => {
      const t = targetRow(truth, row);
      return 1 - dot(z, t) / Math.sqrt(dot(z, z) * dot(t, t));
    },
  },
  'squared-norm': { rows: (z) => dot(z, z) },
};

describe.each(lossNames.map((name) => [name, cases[name]] as const))('%s', (loss, c) => {
  const proto = c.model ?? scores(classes);

  test('is what its name says, row by row, and weighted', () =>
    withGradients(proto, { loss }, async (model) => {
      const step = await model.run({ x }, { target: c.target, weight });
      const z = toNumbers(await model.predict({ x }));
      const expected = Array.from({ length: rows }, (_, row) =>
        c.rows(z.slice(row * classes, (row + 1) * classes), row),
      );
      for (const [row, l] of expected.entries()) expect(step.losses[row]).toBeCloseTo(l, 12);
      expect(step.loss).toBeCloseTo(dot(expected, [...weight]), 12);
      const plain = await model.run({ x }, { target: c.target });
      expect(plain.loss).toBeCloseTo(mean(expected), 12);
      expect(await model.rows({ x })).toEqual([rows, classes]);
    }));

  test.each([
    ['the mean of the rows', undefined],
    ['weights of both signs, and 0', weight],
  ])('has the gradient of %s', (_, w) =>
    withGradients(proto, { loss }, async (model) => {
      const target = { target: c.target, weight: w };
      const { gradients } = await model.run({ x }, target);
      expect(gradientError(gradients, await differences(model, { x }, target))).toBeLessThan(1e-9);
    }),
  );

  test('a row of weight 0 has no influence', () =>
    withGradients(proto, { loss }, async (model) => {
      const w = Float64Array.of(1, 1, 0, 1);
      const before = await model.run({ x }, { target: c.target, weight: w });
      const data = noise(rows * 3, 2);
      data.set([9, -9, 9], 2 * 3);
      const after = await model.run({ x: { ...x, data } }, { target: c.target, weight: w });
      expect(after.loss).toBe(before.loss);
      expect(gradientError(after.gradients, before.gradients)).toBeLessThan(1e-15);
    }));
});

describe('rows', () => {
  test.each([
    ['cross-entropy', [6, classes], int64([2, 3], [0, 1, 2, 3, 4, 0])],
    ['kl', [6, classes], { ...float64([2, 3, classes]), data: new Float64Array(30).fill(0.2) }],
    ['mse', [2, 15], float64([2, 3, classes], 8)],
    ['cosine', [2, 15], float64([2, 15], 8)],
  ] as const)('of %s in an output [2, 3, 5] are %j', (loss, shape, target) =>
    withGradients(scores(classes, undefined, ['batch', 'time', 3]), { loss }, async (model) => {
      const feeds = { x: float64([2, 3, 3]) };
      expect(await model.rows(feeds)).toEqual(shape);
      const { gradients, losses } = await model.run(feeds, { target });
      expect(losses).toHaveLength(shape[0]);
      expect(gradientError(gradients, await differences(model, feeds, { target }))).toBeLessThan(
        1e-9,
      );
    }),
  );

  test('of an output without axes is one', () =>
    withGradients(
      network(
        [
          node('MatMul', ['x', 'w'], ['z']),
          makeNode('ReduceSum', ['z'], 'y', [int('keepdims', 0)]),
        ],
        [stored('w', [3, 1])],
      ),
      { loss: 'mse' },
      async (model) => {
        const target = { target: { ...float64([]), data: Float64Array.of(0.3) } };
        expect(await model.rows({ x })).toEqual([1, 1]);
        const { gradients } = await model.run({ x }, target);
        expect(gradientError(gradients, await differences(model, { x }, target))).toBeLessThan(
          1e-9,
        );
      },
    ));
});

describe('what stands before the end of the graph', () => {
  const source = (loss: LossName, proto: ModelProto, feeds: Feeds = { x }) =>
    withGradients(proto, { loss }, (model) => model.lossSource(feeds));
  const sigmoid = () => node('Sigmoid', ['z'], ['y']);

  test.each(['cross-entropy', 'kl', 'squared-norm'] as const)(
    '%s is of the scores before a Softmax',
    async (loss) => {
      // The runtime may rename what it simplifies, but never the output.
      expect(await source(loss, scores(classes, softmax()))).toBe('z');
      const logSoftmax = makeNode('LogSoftmax', ['z'], 'y', [int('axis', 1)]);
      expect(await source(loss, scores(classes, logSoftmax))).toBe('z');
    },
  );

  test('binary is of the scores before a Sigmoid', async () => {
    expect(await source('binary', scores(classes, sigmoid()))).toBe('z');
    expect(await source('binary', scores(classes, softmax()))).toBe('y');
  });

  test.each(['mse', 'cosine', 'likelihood'] as const)('%s is of the output', async (loss) => {
    expect(await source(loss, scores(classes, softmax()))).toBe('y');
    expect(await source(loss, scores(classes, sigmoid()))).toBe('y');
  });

  test('a Softmax over another axis is no end', async () => {
    const over0 = makeNode('Softmax', ['z'], 'y', [int('axis', 0)]);
    expect(await source('cross-entropy', scores(classes, over0))).toBe('y');
  });

  test('the gradient is that of logits, where probabilities have none to give', () =>
    withGradients(scores(classes), { loss: 'cross-entropy' }, (logits) =>
      withGradients(scores(classes, softmax()), { loss: 'cross-entropy' }, async (model) => {
        // Scores so far apart that a float64 probability is 0 or 1.
        const far = { x: { ...x, data: noise(rows * 3, 2).map((v) => 2e3 * v) } };
        const [a, b] = [
          await logits.run(far, { target: labels }),
          await model.run(far, { target: labels }),
        ];
        expect(b.loss).toBe(a.loss);
        expect(Number.isFinite(b.loss)).toBe(true);
        expect(gradientError(b.gradients, a.gradients)).toBe(0);
      }),
    ));
});

describe('at the edges', () => {
  const at = (z: number[], loss: LossName, target: Target['target']) =>
    withGradients(
      network(
        // What is added to an input itself is taken for preprocessing, not for a bias.
        [node('Identity', ['x'], ['z']), node('Add', ['z', 'w'], ['y'])],
        [stored('w', [z.length])],
        { dims: ['batch', z.length] },
      ),
      { loss },
      (model) => {
        model.values.get('w')?.fill(0);
        return model.run(
          { x: { ...float64([1, z.length]), data: Float64Array.from(z) } },
          { target },
        );
      },
    );

  test('binary of large scores neither overflows nor loses its slope', async () => {
    const target = { ...float64([1, 2]), data: Float64Array.of(0, 1) };
    const { loss, gradients } = await at([800, -800], 'binary', target);
    expect(loss).toBe(800);
    expect([...(gradients.get('w') ?? [])]).toEqual([0.5, -0.5]);
  });

  test('kl of a target with zeros: 0 log 0 is 0', async () => {
    const target = { ...float64([1, 2]), data: Float64Array.of(0, 1) };
    const { loss } = await at([0, 0], 'kl', target);
    expect(loss).toBeCloseTo(Math.log(2), 12);
  });

  test('likelihood of probability 0 is cut off', async () => {
    const { loss } = await at([0, 1], 'likelihood', int64([1], [0]));
    expect(loss).toBeCloseTo(-Math.log(1e-12), 9);
  });

  test('cosine with a vector of zeros is 1', async () => {
    const { loss, gradients } = await at([0, 0], 'cosine', float64([1, 2]));
    expect(loss).toBe(1);
    expect([...(gradients.get('w') ?? [])].every(Number.isFinite)).toBe(true);
  });
});
