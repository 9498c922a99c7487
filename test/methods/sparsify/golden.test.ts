import { factorHessian, inverseFactorDiagonal } from '../../../src/methods/sparsify/cholesky.js';
import type { DsnotOptions } from '../../../src/methods/sparsify/dsnot.js';
import type { LayerMask, LayerTask } from '../../../src/methods/sparsify/layer.js';
import { magnitudeLayerMask } from '../../../src/methods/sparsify/masks.js';
import { type Pattern, parsePattern } from '../../../src/methods/sparsify/pattern.js';
import { RowPool } from '../../../src/methods/sparsify/row-pool.js';
import type { Criterion } from '../../../src/methods/sparsify/scores.js';
import { sparseGpt } from '../../../src/methods/sparsify/sparsegpt.js';
import {
  type InputStatistics,
  reduceActivation,
  StatisticsAccumulator,
} from '../../../src/methods/sparsify/statistics.js';
import { type GoldenCase, type GoldenMask, goldenCases } from './golden.js';

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
  return a.reduce((count, bit, i) => count + (bit === b[i] ? 0 : 1), 0);
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
    const x = golden.floats('X');
    for (let j = 0; j < golden.cols; j++) {
      let absolute = 0;
      for (let i = j; i < x.length; i += golden.cols) absolute += Math.abs(x[i]);
      expect(Math.abs(collected.scaler[j] - scaler[j])).toBeLessThanOrEqual(1e-6 * scaler[j]);
      expect(Math.abs(collected.variance[j] - variance[j])).toBeLessThanOrEqual(1e-6 * variance[j]);
      expect(Math.abs(collected.sum[j] - sum[j])).toBeLessThanOrEqual(
        (1e-6 * absolute) / golden.samples,
      );
    }
  });

  test('diag(U)', () => {
    const tolerance = golden.name.startsWith('edge_ties') ? 2e-3 : 1e-4;
    const expected = golden.floats('hinv_diag');
    sources['calibration inputs'].inverseDiagonal.forEach((u, j) => {
      if (factor.dead[j]) return;
      expect(Math.abs(u - expected[j])).toBeLessThanOrEqual(tolerance * expected[j]);
    });
  });

  describe.each(Object.entries(sources))('masks from %s', (_source, inputs) => {
    test.each(ids(/^(init|standalone\/wanda)\//).map((entry) => [entry.id, entry] as const))('%s', async (id, entry) => {
      const { mask } = await pool.maskRows({ ...task(golden, id), ...inputs });
      expect(differingBits(mask, golden.mask(entry.index))).toBe(0);
    });

    test.each(ids(/^(dsnot|variant)\//).map((entry) => [entry.id, entry] as const))(
      '%s',
      async (id, entry) => {
        const dsnot = dsnotOptions(entry.flags);
        const result = await pool.maskRows({ ...task(golden, id), ...inputs, dsnot });
        expect(differingBits(result.mask, golden.mask(entry.index))).toBe(0);
        if (entry.trace_index !== undefined) {
          expectTrace(result, golden.trace(entry.trace_index), golden.rows);
        }
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
      const excess = weights.map(
        (value, i) => Math.abs(value - expected[i]) - 1e-4 * Math.abs(expected[i]),
      );
      expect(Math.max(...excess)).toBeLessThanOrEqual(5e-6);
    });
  }
});

function expectTrace({ trace }: LayerMask, golden: (row: number) => number[], rows: number): void {
  if (!trace) throw new Error('no trace');
  for (let row = 0; row < rows; row++) {
    const [initialError, finalError, swaps, stop] = golden(row);
    expect([trace.swaps[row], trace.stop[row]]).toEqual([swaps, stop]);
    const near = (actual: number, expected: number) =>
      expect(Math.abs(actual - expected)).toBeLessThanOrEqual(1e-4 + 1e-5 * Math.abs(expected));
    near(trace.initialError[row], initialError);
    near(trace.finalError[row], finalError);
  }
}
