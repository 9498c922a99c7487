import { ResectError } from '../../src/errors.js';
import { checkGates, type GateInput, type Gates, validateGates } from '../../src/evaluate/gates.js';

const input = (more: Partial<GateInput> = {}): GateInput => ({
  before: { accuracy: 0.9, loss: 0.5, perplexity: 20 },
  after: {
    accuracy: 0.88,
    loss: 0.55,
    perplexity: 21,
    kl: 0.01,
    cosine: 0.999,
    agreement: 0.97,
    relativeError: 0.02,
  },
  bytes: { before: 1000, after: 400 },
  speedup: 1.5,
  ...more,
});

const gates = (more: Partial<Gates>): Gates => ({ maxDrop: [], min: [], ...more });
const passes = (more: Partial<Gates>, given = input()) =>
  checkGates(gates(more), given).map(({ passed }) => passed);

describe('--max-drop', () => {
  test.each([
    ['accuracy=0.021', true],
    ['accuracy=0.019', false],
    ['accuracy=3%', true],
    ['accuracy=2%', false],
    ['loss=0.051', true],
    ['loss=0.049', false],
    ['perplexity=5.1%', true],
    ['perplexity=4.9%', false],
    ['perplexity=1', true],
    ['kl=0.01', true],
    ['kl=0.009', false],
    ['cosine=0.0011', true],
    ['cosine=0.0009', false],
    ['agreement=0.031', true],
    ['agreement=0.029', false],
    ['relativeError=2e-2', true],
    ['relativeError=1e-2', false],
  ])('%s: %s', (gate, passed) => expect(passes({ maxDrop: [gate] })).toEqual([passed]));

  test('a model that became better passes, even with nothing allowed', () => {
    const better = input({ after: { accuracy: 0.95, loss: 0.4 } });
    expect(passes({ maxDrop: ['accuracy=0', 'loss=0%'] }, better)).toEqual([true, true]);
  });

  test('a negative amount asks for an improvement', () => {
    expect(passes({ maxDrop: ['accuracy=-0.01'] })).toEqual([false]);
    expect(passes({ maxDrop: ['accuracy=-0.01'] }, input({ after: { accuracy: 0.92 } }))).toEqual([
      true,
    ]);
  });
});

describe('--min', () => {
  test.each([
    ['accuracy=0.88', true],
    ['accuracy=0.881', false],
    ['perplexity=21', true],
    ['perplexity=20.9', false],
    ['kl=0.02', true],
    ['cosine=0.9999', false],
  ])('%s: %s', (gate, passed) => expect(passes({ min: [gate] })).toEqual([passed]));

  test('says which way is better', () => {
    const [high, low] = checkGates(gates({ min: ['accuracy=0.5', 'loss=1'] }), input());
    expect(high.detail).toMatch(/at least/);
    expect(low.detail).toMatch(/at most/);
  });
});

describe('--max-size', () => {
  test.each([
    ['400', true],
    ['399', false],
    ['400B', true],
    ['0.4KB', true],
    ['0.39 kb', false],
    ['1MB', true],
    ['1GB', true],
    ['0.4x', true],
    ['0.39x', false],
  ])('%s: %s', (maxSize, passed) => expect(passes({ maxSize })).toEqual([passed]));
});

describe('--min-speedup', () => {
  test.each([
    [1.5, true],
    [1.51, false],
  ])('%d: %s', (minSpeedup, passed) => expect(passes({ minSpeedup })).toEqual([passed]));

  test('without a measured latency: exit 2', () => {
    const check = () => passes({ minSpeedup: 1 }, input({ speedup: undefined }));
    expect(check).toThrow(expect.objectContaining({ exitCode: 2 }));
  });
});

test('NaN fails every gate', () => {
  const nan = input({
    after: { accuracy: Number.NaN, loss: Number.NaN },
    speedup: Number.NaN,
    bytes: { before: 1, after: Number.NaN },
  });
  expect(
    passes(
      {
        maxDrop: ['accuracy=100', 'loss=1e9%'],
        min: ['accuracy=0', 'loss=1e9'],
        maxSize: '1GB',
        minSpeedup: 0,
      },
      nan,
    ),
  ).toEqual(Array(6).fill(false));
});

test('no gates, no results; several in the order of the flags', () => {
  expect(passes({})).toEqual([]);
  const names = checkGates(
    gates({ maxDrop: ['loss=1'], min: ['accuracy=0'], maxSize: '1x', minSpeedup: 1 }),
    input(),
  ).map(({ gate }) => gate);
  expect(names).toEqual([
    '--max-drop loss=1',
    '--min accuracy=0',
    '--max-size 1x',
    '--min-speedup 1',
  ]);
});

describe('refused with exit 2', () => {
  const refusal = (make: () => unknown): ResectError => {
    try {
      make();
    } catch (error) {
      if (error instanceof ResectError) return error;
      throw error;
    }
    throw new Error('nothing was thrown');
  };

  test.each([
    '',
    'accuracy',
    'accuracy=',
    'accuracy=abc',
    'accuracy=1.2.3',
    'accuracy=1%%',
    '=1',
    'acuracy=0.1',
    'constructor=1',
    'toString=0',
    '__proto__=1',
  ])('gate "%s", before any work', (gate) => {
    expect(refusal(() => validateGates(gates({ maxDrop: [gate] }))).exitCode).toBe(2);
    expect(refusal(() => validateGates(gates({ min: [gate] }))).exitCode).toBe(2);
  });

  test.each(['', 'x', 'abc', '1TB', '-5', '1.2.3', '.', '10 %'])('size "%s"', (maxSize) => {
    expect(refusal(() => validateGates(gates({ maxSize }))).exitCode).toBe(2);
  });

  test('a metric that was not measured, with those that were', () => {
    const { exitCode, detail } = refusal(() => passes({ min: ['rmse=1'] }));
    expect(exitCode).toBe(2);
    expect(detail.expected).toMatch(/accuracy/);
    expect(
      refusal(() => passes({ maxDrop: ['r2=1'] }, input({ after: {} }))).detail.expected,
    ).toMatch(/none/);
  });

  test('an unknown metric, with those that are known', () => {
    expect(refusal(() => validateGates(gates({ min: ['acuracy=1'] }))).detail.expected).toMatch(
      /perplexity/,
    );
  });
});
