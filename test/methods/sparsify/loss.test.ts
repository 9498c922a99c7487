import fc from 'fast-check';
import {
  reduceActivation,
  StatisticsAccumulator,
} from '../../../src/methods/calibration/statistics.js';
import {
  type LayerMask,
  type LayerTask,
  maskRowRange,
} from '../../../src/methods/sparsify/layer.js';
import { LossGate, type OutputLoss } from '../../../src/methods/sparsify/loss.js';

const tokens = 12;

/** Small integers, so that float32 sums are exact and equality means equality. */
const integers = (length: number) =>
  fc
    .array(fc.integer({ min: -4, max: 4 }), { minLength: length, maxLength: length })
    .map((values) => Float32Array.from(values));

const layers = fc
  .record({ rows: fc.integer({ min: 1, max: 4 }), cols: fc.integer({ min: 4, max: 16 }) })
  .chain(({ rows, cols }) =>
    fc.record({
      rows: fc.constant(rows),
      cols: fc.constant(cols),
      w: integers(rows * cols),
      x: integers(tokens * cols),
    }),
  );

function gramOf(x: Float32Array, cols: number): Float32Array {
  const gram = new Float32Array(cols * cols);
  for (let t = 0; t < tokens; t++)
    for (let i = 0; i < cols; i++)
      for (let j = 0; j < cols; j++) gram[i * cols + j] += x[t * cols + i] * x[t * cols + j];
  return gram;
}

/** ‖Xδᵀ‖² of one row, δ the weights that the mask prunes. */
function lossOf(
  x: Float32Array,
  w: Float32Array,
  mask: Uint8Array,
  row: number,
  cols: number,
): number {
  let loss = 0;
  for (let t = 0; t < tokens; t++) {
    let missing = 0;
    for (let c = 0; c < cols; c++)
      if (mask[row * cols + c] === 0) missing += w[row * cols + c] * x[t * cols + c];
    loss += missing * missing;
  }
  return loss;
}

function gradientOf(
  gram: Float32Array,
  w: Float32Array,
  mask: Uint8Array,
  rows: number,
  cols: number,
): Float32Array {
  const gradient = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < cols; i++)
      if (mask[r * cols + i] === 0)
        for (let j = 0; j < cols; j++)
          gradient[r * cols + j] += w[r * cols + i] * gram[i * cols + j];
  return gradient;
}

test('a swap is made exactly when it lowers the loss, and the gradient follows', () => {
  fc.assert(
    fc.property(layers, fc.infiniteStream(fc.nat()), ({ rows, cols, w, x }, picks) => {
      const gram = gramOf(x, cols);
      const mask = Uint8Array.from(w, (_, i) => i % 2);
      const loss: OutputLoss = { gram, gradient: gradientOf(gram, w, mask, rows, cols) };
      const gate = new LossGate(loss);
      for (let n = 0; n < 8; n++) {
        const row = picks.next().value % rows;
        const columns = Array.from({ length: cols }, (_, c) => c);
        const pruned = columns.filter((c) => mask[row * cols + c] === 0);
        const kept = columns.filter((c) => mask[row * cols + c] === 1);
        if (pruned.length === 0 || kept.length === 0) continue;
        const grow = pruned[picks.next().value % pruned.length];
        const prune = kept[picks.next().value % kept.length];
        const before = lossOf(x, w, mask, row, cols);
        const swapped = mask.slice();
        swapped[row * cols + grow] = 1;
        swapped[row * cols + prune] = 0;
        const lower = lossOf(x, w, swapped, row, cols) < before;
        const made = gate.trySwap(row, grow, w[row * cols + grow], prune, w[row * cols + prune]);
        expect(made).toBe(lower);
        if (made) mask.set(swapped);
        expect(loss.gradient).toEqual(gradientOf(gram, w, mask, rows, cols));
      }
    }),
  );
});

test('refinement behind the gate keeps the number of weights and never raises the loss of a row', () => {
  let swaps = 0;
  fc.assert(
    fc.property(layers, ({ rows, cols, w, x }) => {
      const accumulator = new StatisticsAccumulator(cols, { gram: false });
      accumulator.add(reduceActivation(x, tokens, cols, { gram: false }));
      const task: LayerTask = {
        w,
        rows,
        cols,
        pattern: { kind: 'unstructured', sparsity: 0.5 },
        criterion: 'magnitude',
        statistics: accumulator.finish(),
      };
      const blank = (): LayerMask => ({
        mask: new Uint8Array(rows * cols),
        trace: {
          initialError: new Float32Array(rows),
          finalError: new Float32Array(rows),
          swaps: new Uint32Array(rows),
          refused: new Uint32Array(rows),
          stop: new Uint8Array(rows),
        },
      });
      const initial = blank();
      maskRowRange(task, initial, 0, rows);
      const gram = gramOf(x, cols);
      const loss = { gram, gradient: gradientOf(gram, w, initial.mask, rows, cols) };
      const dsnot = { cycles: 6, threshold: 0, varPower: 1, sameSign: false };
      const refined = blank();
      maskRowRange({ ...task, dsnot, loss }, refined, 0, rows);
      for (let r = 0; r < rows; r++) {
        const count = (mask: Uint8Array) =>
          mask.subarray(r * cols, (r + 1) * cols).reduce((a, b) => a + b, 0);
        expect(count(refined.mask)).toBe(count(initial.mask));
        const [before, after] = [initial, refined].map(({ mask }) => lossOf(x, w, mask, r, cols));
        if (refined.trace?.swaps[r]) expect(after).toBeLessThan(before);
        else
          expect(refined.mask.subarray(r * cols, (r + 1) * cols)).toEqual(
            initial.mask.subarray(r * cols, (r + 1) * cols),
          );
        expect(
          (refined.trace?.swaps[r] ?? 0) + (refined.trace?.refused[r] ?? 0),
        ).toBeLessThanOrEqual(6);
        swaps += refined.trace?.swaps[r] ?? 0;
      }
    }),
  );
  expect(swaps).toBeGreaterThan(0);
});
