import { RowWorkers, shared } from '../row-workers.js';
import type { LayerMask, LayerTask } from './layer.js';
import { checkTask, maskRowRange } from './layer.js';

/** Masks layers row by row on worker threads. The result does not depend on their number. */
export class RowPool {
  readonly #workers: RowWorkers;

  /** With one thread the work is done by the caller's. */
  constructor(threads: number) {
    this.#workers = new RowWorkers(new URL('./row-worker.js', import.meta.url), threads);
  }

  /** Masks every row of the layer. What workers need is copied to shared memory once. */
  async maskRows(task: LayerTask): Promise<LayerMask> {
    checkTask(task);
    const { w, rows, statistics, loss } = task;
    const { active } = this.#workers;
    const result = allocateResult(task, active ? SharedArrayBuffer : ArrayBuffer);
    if (!active) {
      maskRowRange(task, result, 0, rows);
      return result;
    }
    const message: LayerTask = {
      ...task,
      w: shared(w),
      // Without the Hessian, which every message would copy.
      statistics: statistics && {
        scaler: statistics.scaler,
        sum: statistics.sum,
        variance: statistics.variance,
      },
      loss: loss && { gram: shared(loss.gram), gradient: shared(loss.gradient) },
    };
    await this.#workers.run(rows, (share) => ({ task: message, result, ...share }));
    if (loss && message.loss) loss.gradient.set(message.loss.gradient);
    return result;
  }

  /** Ends the workers. */
  async close(): Promise<void> {
    await this.#workers.close();
  }
}

function allocateResult(
  { rows, cols, dsnot }: LayerTask,
  Memory: ArrayBufferConstructor | SharedArrayBufferConstructor,
): LayerMask {
  const mask = new Uint8Array(new Memory(rows * cols));
  if (!dsnot) return { mask };
  return {
    mask,
    trace: {
      initialError: new Float32Array(new Memory(4 * rows)),
      finalError: new Float32Array(new Memory(4 * rows)),
      swaps: new Uint32Array(new Memory(4 * rows)),
      refused: new Uint32Array(new Memory(4 * rows)),
      stop: new Uint8Array(new Memory(rows)),
    },
  };
}
