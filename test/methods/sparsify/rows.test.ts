import fc from 'fast-check';
import { type DsnotOptions, StopCode } from '../../../src/methods/sparsify/dsnot.js';
import {
  type LayerMask,
  type LayerTask,
  maskRowRange,
} from '../../../src/methods/sparsify/layer.js';
import { magnitudeLayerMask } from '../../../src/methods/sparsify/masks.js';
import { type Pattern, zerosPerRow } from '../../../src/methods/sparsify/pattern.js';
import { RowPool } from '../../../src/methods/sparsify/row-pool.js';
import { type NaiveRow, naiveDsnot, naiveMask, naiveScores } from './naive.js';

/** Values that make ties, zeros of both kinds and, in products, overflow and underflow. */
const weight = fc.oneof(
  fc.integer({ min: -4, max: 4 }).map((x) => x / 8),
  fc.float({ min: -2, max: 2, noNaN: true }),
  fc.constantFrom(-0, 1e-30, -1e-42, 3e38, -3e38),
);
const sum = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.float({ min: -9, max: 9, noNaN: true }));
const nonNegative = (special: number[]) =>
  fc.oneof(
    fc.integer({ min: 0, max: 4 }),
    fc.float({ min: 0, max: 9, noNaN: true }),
    fc.constantFrom(...special),
  );

const pattern: fc.Arbitrary<Pattern> = fc.oneof(
  fc.constantFrom(0, 0.1, 0.29, 0.5, 0.6, 0.9, 1).map((sparsity) => ({
    kind: 'unstructured' as const,
    sparsity,
  })),
  fc
    .constantFrom([1, 2], [2, 4], [1, 4], [3, 4], [4, 8], [20, 40])
    .map(([n, m]) => ({ kind: 'nm' as const, n, m })),
);

const options: fc.Arbitrary<DsnotOptions> = fc.record({
  cycles: fc.constantFrom(0, 1, 3, 50),
  threshold: fc.constantFrom(0, 0.1, 1),
  varPower: fc.constantFrom(0, 0.5, 1, 2, 1.5),
  sameSign: fc.boolean(),
});

interface Layer {
  task: LayerTask & { dsnot: DsnotOptions; criterion: 'magnitude' | 'wanda' };
  naive: NaiveRow[];
}

const layer: fc.Arbitrary<Layer> = pattern.chain((chosen) => {
  const cols =
    chosen.kind === 'nm'
      ? fc.integer({ min: 1, max: Math.ceil(80 / chosen.m) }).map((groups) => groups * chosen.m)
      : fc.integer({ min: 1, max: 150 });
  return fc.tuple(cols, fc.integer({ min: 1, max: 4 })).chain(([c, rows]) => {
    const vector = (value: fc.Arbitrary<number>, length: number) =>
      fc.array(value, { minLength: length, maxLength: length }).map((a) => Float32Array.from(a));
    return fc
      .record({
        w: vector(weight, rows * c),
        scaler: vector(nonNegative([1e38]), c),
        sum: vector(sum, c),
        variance: vector(nonNegative([1e-40, 1e30]), c),
        criterion: fc.constantFrom('magnitude' as const, 'wanda' as const),
        dsnot: options,
      })
      .map(({ w, criterion, dsnot, ...statistics }) => ({
        task: { w, rows, cols: c, pattern: chosen, criterion, statistics, dsnot },
        naive: Array.from({ length: rows }, (_, row) => ({
          w: [...w.subarray(row * c, (row + 1) * c)],
          scaler: [...statistics.scaler],
          sum: [...statistics.sum],
          variance: [...statistics.variance],
        })),
      }));
  });
});

const pool = new RowPool(1);
const runs = { numRuns: 1000 };

test('masks and refinement are those of an implementation that sorts', async () => {
  const stops = new Set<number>();
  await fc.assert(
    fc.asyncProperty(layer, async ({ task, naive }) => {
      const { mask, trace } = await pool.maskRows(task);
      const expected = naive.map((row) => {
        const scores = naiveScores(row, task.criterion);
        return naiveDsnot(row, scores, naiveMask(scores, task.pattern), task.pattern, task.dsnot);
      });
      expect([...mask]).toEqual(expected.flatMap((row) => row.mask));
      expect([...(trace?.swaps ?? [])]).toEqual(expected.map((row) => row.swaps));
      expect([...(trace?.stop ?? [])]).toEqual(expected.map((row) => row.stop));
      expect([...(trace?.finalError ?? [])]).toEqual(expected.map((row) => row.finalError));
      for (const row of expected) stops.add(row.stop);
    }),
    runs,
  );
  expect(stops).toEqual(new Set(Object.values(StopCode)));
});

test('every row and every group keeps its number of weights', async () => {
  await fc.assert(
    fc.asyncProperty(layer, fc.boolean(), async ({ task }, refine) => {
      const { mask } = await pool.maskRows(refine ? task : { ...task, dsnot: undefined });
      const { rows, cols } = task;
      const length = task.pattern.kind === 'nm' && !refine ? task.pattern.m : cols;
      const zeros = (zerosPerRow(task.pattern, cols) * length) / cols;
      for (let from = 0; from < rows * cols; from += length) {
        const kept = mask.subarray(from, from + length).reduce((a, b) => a + b, 0);
        expect(length - kept).toBe(zeros);
      }
    }),
    runs,
  );
});

test('refined N:M groups keep exactly n zeros', async () => {
  await fc.assert(
    fc.asyncProperty(layer, async ({ task }) => {
      fc.pre(task.pattern.kind === 'nm');
      if (task.pattern.kind !== 'nm') return;
      const { n, m } = task.pattern;
      const { mask } = await pool.maskRows(task);
      for (let from = 0; from < mask.length; from += m) {
        expect(mask.subarray(from, from + m).filter((keep) => keep === 0)).toHaveLength(n);
      }
    }),
    runs,
  );
});

test('a row that stops at the threshold is within it', async () => {
  await fc.assert(
    fc.asyncProperty(layer, async ({ task }) => {
      const { trace } = await pool.maskRows(task);
      trace?.stop.forEach((stop, row) => {
        if (stop !== StopCode.threshold) return;
        const error = Math.abs(trace.finalError[row]);
        // An overflowing row ends with NaN and stops like one that is done.
        if (!Number.isNaN(error)) {
          expect(error).toBeLessThanOrEqual(Math.fround(task.dsnot.threshold));
        }
      });
    }),
    runs,
  );
});

test('rows do not depend on their order', async () => {
  await fc.assert(
    fc.asyncProperty(layer, async ({ task }) => {
      const { rows, cols } = task;
      const reversed = (all: Float32Array | Uint8Array) =>
        Array.from({ length: rows }, (_, i) => [
          ...all.subarray((rows - 1 - i) * cols, (rows - i) * cols),
        ]).flat();
      const straight = await pool.maskRows(task);
      const backwards = await pool.maskRows({ ...task, w: Float32Array.from(reversed(task.w)) });
      expect([...backwards.mask]).toEqual(reversed(straight.mask));
      expect([...(backwards.trace?.swaps ?? [])].reverse()).toEqual([
        ...(straight.trace?.swaps ?? []),
      ]);
    }),
    runs,
  );
});

test('rows can be masked in any ranges', () => {
  fc.assert(
    fc.property(layer, fc.nat(), ({ task }, cut) => {
      const { rows, cols } = task;
      const run = (cuts: number[]): LayerMask => {
        const result = {
          mask: new Uint8Array(rows * cols),
          trace: {
            initialError: new Float32Array(rows),
            finalError: new Float32Array(rows),
            swaps: new Uint32Array(rows),
            refused: new Uint32Array(rows),
            stop: new Uint8Array(rows),
          },
        };
        for (let i = 1; i < cuts.length; i++) maskRowRange(task, result, cuts[i - 1], cuts[i]);
        return result;
      };
      expect(run([0, cut % (rows + 1), rows])).toEqual(run([0, rows]));
    }),
    runs,
  );
});

describe('edge cases', () => {
  const statistics = {
    scaler: Float32Array.of(4, 0, 1, 1),
    sum: Float32Array.of(2, 0, -1, 1),
    variance: Float32Array.of(1, 0, 0, 1),
  };
  const dsnot = { cycles: 50, threshold: 0, varPower: 1, sameSign: false };
  const base = { rows: 1, cols: 4, criterion: 'wanda' as const, statistics };
  const unstructured = (sparsity: number): Pattern => ({ kind: 'unstructured', sparsity });

  test('sparsity 0 keeps every weight, 1 none, and neither is refined', async () => {
    const w = Float32Array.of(1, 2, 3, 4);
    const none = await pool.maskRows({ ...base, w, pattern: unstructured(0), dsnot });
    expect([...none.mask]).toEqual([1, 1, 1, 1]);
    expect(none.trace).toMatchObject({ swaps: Uint32Array.of(0), stop: Uint8Array.of(0) });
    const all = await pool.maskRows({ ...base, w, pattern: unstructured(1), dsnot });
    expect([...all.mask]).toEqual([0, 0, 0, 0]);
    expect(all.trace).toMatchObject({ swaps: Uint32Array.of(0), stop: Uint8Array.of(2) });
  });

  test('a dead channel is pruned first, and never grows back', async () => {
    const w = Float32Array.of(0.1, 9, 0.5, 0.5);
    const { mask } = await pool.maskRows({ ...base, w, pattern: unstructured(0.5), dsnot });
    expect(mask[1]).toBe(0);
  });

  test('a channel without variance grows back before any other', async () => {
    // Column 2 has d = 0.5 and g = Infinity; columns 0 and 1 have larger d.
    const w = Float32Array.of(1, 1, -0.5, -9);
    const varied = {
      scaler: Float32Array.of(1, 1, 1, 100),
      sum: Float32Array.of(1, 1, -1, 1),
      variance: Float32Array.of(1, 1, 0, 1),
    };
    const once = { ...dsnot, cycles: 1 };
    const { mask } = await pool.maskRows({
      ...base,
      w,
      statistics: varied,
      pattern: unstructured(0.75),
      dsnot: once,
    });
    expect([...mask]).toEqual([0, 0, 1, 0]);
  });

  test('the threshold is a float32 and is itself within the threshold', async () => {
    const plain = {
      scaler: Float32Array.of(1, 1),
      sum: Float32Array.of(1, 1),
      variance: Float32Array.of(1, 1),
    };
    const { trace } = await pool.maskRows({
      ...base,
      w: Float32Array.of(0.1, 9),
      cols: 2,
      statistics: plain,
      pattern: unstructured(0.5),
      dsnot: { ...dsnot, threshold: 0.1 },
    });
    expect(trace).toMatchObject({ initialError: Float32Array.of(0.1), stop: Uint8Array.of(0) });
  });

  test('a row of zeros prunes its first columns and stops at once', async () => {
    const { mask, trace } = await pool.maskRows({
      ...base,
      w: new Float32Array(4),
      pattern: unstructured(0.5),
      dsnot,
    });
    expect([...mask]).toEqual([0, 0, 1, 1]);
    expect(trace).toMatchObject({ swaps: Uint32Array.of(0), stop: Uint8Array.of(0) });
  });

  test('a task whose parts do not fit together is refused', async () => {
    const task: LayerTask = {
      ...base,
      w: new Float32Array(4),
      pattern: { kind: 'nm', n: 2, m: 4 },
    };
    const short = { ...statistics, sum: new Float32Array(3) };
    const refused: [Partial<LayerTask>, string][] = [
      [{ pattern: { kind: 'nm', n: 2, m: 3 } }, 'groups of 3'],
      [{ rows: 2 }, '[2, 4]'],
      [{ statistics: short }, '3 values'],
      [{ inverseDiagonal: new Float32Array(5) }, '5 values'],
      [{ statistics: undefined }, 'needs statistics'],
      [{ criterion: 'magnitude', statistics: undefined, dsnot }, 'needs statistics'],
      [{ criterion: 'sparsegpt' }, 'needs diag(U)'],
    ];
    for (const [change, message] of refused) {
      await expect(pool.maskRows({ ...task, ...change })).rejects.toThrow(message);
    }
  });
});

describe('stand-alone magnitude', () => {
  const layerWide = (sparsity: number): Pattern => ({ kind: 'unstructured', sparsity });

  test('prunes up to the value at rank trunc(count·sparsity), as the sorted values say', () => {
    fc.assert(
      fc.property(
        fc.array(weight, { minLength: 1, maxLength: 300 }),
        fc.constantFrom(0.1, 0.29, 0.5, 0.9, 0.999),
        (values, sparsity) => {
          const w = Float32Array.from(values);
          const rank = Math.trunc(w.length * sparsity);
          const threshold = w.map(Math.abs).sort()[rank];
          const mask = magnitudeLayerMask(w, 1, w.length, layerWide(sparsity));
          const expected = [...w].map((x) => (rank === 0 || Math.abs(x) > threshold ? 1 : 0));
          expect([...mask]).toEqual(expected);
        },
      ),
      runs,
    );
  });

  test('sparsity 0 prunes nothing', () => {
    const mask = magnitudeLayerMask(Float32Array.of(0, 1), 1, 2, layerWide(0));
    expect([...mask]).toEqual([1, 1]);
  });

  test('weights may lie anywhere in a buffer', () => {
    const w = new Float32Array([9, 9, -1, 2, 0.5, 3]).subarray(2);
    expect([...magnitudeLayerMask(w, 2, 2, layerWide(0.25))]).toEqual([0, 1, 0, 1]);
    expect([...magnitudeLayerMask(w, 2, 2, { kind: 'nm', n: 1, m: 2 })]).toEqual([0, 1, 0, 1]);
  });
});
