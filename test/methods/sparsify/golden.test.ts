import {
  type InputStatistics,
  reduceActivation,
  StatisticsAccumulator,
} from '../../../src/methods/calibration/statistics.js';
import { factorHessian, inverseFactorDiagonal } from '../../../src/methods/sparsify/cholesky.js';
import type { DsnotOptions } from '../../../src/methods/sparsify/dsnot.js';
import type { LayerMask, LayerTask } from '../../../src/methods/sparsify/layer.js';
import { magnitudeLayerMask } from '../../../src/methods/sparsify/masks.js';
import { type Pattern, parsePattern } from '../../../src/methods/sparsify/pattern.js';
import { RowPool } from '../../../src/methods/sparsify/row-pool.js';
import type { Criterion } from '../../../src/methods/sparsify/scores.js';
import { sparseGpt } from '../../../src/methods/sparsify/sparsegpt.js';
import { type GoldenCase, type GoldenMask, type GoldenTrace, goldenCases } from './golden.js';

const pool = new RowPool(1);

/** `u0.6` or `2:4`, second or third part of an id such as `dsnot/wanda/u0.6`. */
function patternOf(id: string): Pattern {
  return parsePattern(id.split('/')[2].replace(/^u/, ''));
}

function dsnotOptions(flags: GoldenMask['flags'] = {}): DsnotOptions {
  return {
    cycles: flags.max_cycle_time ?? 50,
    threshold: flags.update_threshold ?? 0.1,
    varPower: flags.pow_of_var_regrowing ?? 1,
    sameSign: Boolean(flags.require_same_sign ?? false),
  };
}

/** Statistics from X.npy, one call per sample. */
function collect(golden: GoldenCase): InputStatistics {
  const { samples, tokensPerSample, cols } = golden;
  const x = golden.floats('X');
  const accumulator = new StatisticsAccumulator(cols, { gram: true });
  for (let s = 0; s < samples; s++) {
    const size = tokensPerSample * cols;
    const sample = x.subarray(s * size, (s + 1) * size);
    accumulator.add(reduceActivation(sample, tokensPerSample, cols, { gram: true }));
  }
  return accumulator.finish();
}

function factorOf(golden: GoldenCase, statistics: InputStatistics) {
  const factor = statistics.hessian && factorHessian(statistics.hessian, golden.cols);
  if (!factor) throw new Error('not positive definite');
  return factor;
}

function task(golden: GoldenCase, id: string): LayerTask {
  const { w, rows, cols } = golden;
  return { w, rows, cols, pattern: patternOf(id), criterion: id.split('/')[1] as Criterion };
}

function differingBits(a: Uint8Array, b: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) count++;
  return count;
}

/** The largest |actual - expected| - tolerance(i); at most 0 when all are within their tolerance. */
function worstExcess(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: (i: number) => number,
): number {
  let worst = -Infinity;
  for (let i = 0; i < expected.length; i++) {
    const excess = Math.abs(actual[i] - expected[i]) - tolerance(i);
    if (!(excess <= worst)) worst = excess;
  }
  return worst;
}

function checkTrace({ trace }: LayerMask, golden: GoldenTrace): void {
  if (!trace) throw new Error('no trace');
  expect([...trace.swaps]).toEqual([...golden.swaps]);
  expect([...trace.stop]).toEqual([...golden.stop]);
  for (const error of ['initialError', 'finalError'] as const) {
    const tolerance = (row: number) => 1e-4 + 1e-5 * Math.abs(golden[error][row]);
    expect(worstExcess(trace[error], golden[error], tolerance)).toBeLessThanOrEqual(0);
  }
}

describe.each(goldenCases.map((golden) => [golden.name, golden] as const))('%s', (_, golden) => {
  const ids = (kind: RegExp) => golden.masks.filter(({ id }) => kind.test(id));
  const collected = collect(golden);
  const factor = factorOf(golden, collected);
  const sources = {
    'given statistics': {
      statistics: golden.statistics(),
      inverseDiagonal: golden.floats('hinv_diag'),
    },
    'calibration inputs': {
      statistics: collected,
      inverseDiagonal: inverseFactorDiagonal(factor),
    },
  };

  test('statistics of the calibration inputs', () => {
    const [scaler, sum, , variance] = golden.exactStatistics();
    const absolute = new Float64Array(golden.cols);
    golden.floats('X').forEach((x, i) => {
      absolute[i % golden.cols] += Math.abs(x) / golden.samples;
    });
    expect(worstExcess(collected.scaler, scaler, (j) => 1e-6 * scaler[j])).toBeLessThanOrEqual(0);
    expect(
      worstExcess(collected.variance, variance, (j) => 1e-6 * variance[j]),
    ).toBeLessThanOrEqual(0);
    expect(worstExcess(collected.sum, sum, (j) => 1e-6 * absolute[j])).toBeLessThanOrEqual(0);
  });

  test('diag(U)', () => {
    const relative = golden.name.startsWith('edge_ties') ? 2e-3 : 1e-4;
    const expected = golden.floats('hinv_diag');
    const actual = sources['calibration inputs'].inverseDiagonal.map((u, j) =>
      factor.dead[j] ? expected[j] : u,
    );
    expect(worstExcess(actual, expected, (j) => relative * expected[j])).toBeLessThanOrEqual(0);
  });

  describe.each(Object.entries(sources))('masks from %s', (_source, inputs) => {
    test.each(ids(/^(init|standalone\/wanda)\//).map((entry) => [entry.id, entry] as const))(
      '%s',
      async (id, entry) => {
        const { mask } = await pool.maskRows({ ...task(golden, id), ...inputs });
        expect(differingBits(mask, golden.mask(entry.index))).toBe(0);
      },
    );

    test.each(ids(/^(dsnot|variant)\//).map((entry) => [entry.id, entry] as const))(
      '%s',
      async (id, entry) => {
        const dsnot = dsnotOptions(entry.flags);
        const result = await pool.maskRows({ ...task(golden, id), ...inputs, dsnot });
        expect(differingBits(result.mask, golden.mask(entry.index))).toBe(0);
        if (entry.trace_index !== undefined) checkTrace(result, golden.trace(entry.trace_index));
      },
    );
  });

  const magnitudes = ids(/^standalone\/magnitude\//);
  if (magnitudes.length > 0) {
    test.each(magnitudes.map((entry) => [entry.id, entry] as const))('%s', (id, entry) => {
      const mask = magnitudeLayerMask(golden.w, golden.rows, golden.cols, patternOf(id));
      expect(differingBits(mask, golden.mask(entry.index))).toBe(0);
    });
  }

  const sparseGpts = ids(/^standalone\/sparsegpt\//);
  if (sparseGpts.length > 0) {
    test.each(sparseGpts.map((entry) => [entry.id, entry] as const))('%s', (id, entry) => {
      const { mask, weights } = sparseGpt(golden.w, golden.rows, factor, patternOf(id));
      expect(differingBits(mask, golden.mask(entry.index))).toBe(0);
      if (!entry.weights) return;
      const expected = golden.floats(entry.weights.replace('.npy', ''));
      const tolerance = (i: number) => 5e-6 + 1e-4 * Math.abs(expected[i]);
      expect(worstExcess(weights, expected, tolerance)).toBeLessThanOrEqual(0);
    });
  }
});
