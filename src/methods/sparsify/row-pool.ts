import { availableParallelism } from 'node:os';
import Tinypool from 'tinypool';
import type { LayerMask, LayerTask } from './layer.js';
import { checkTask, maskRowRange } from './layer.js';
import type { RowRange } from './row-worker.js';

/** Shares per worker, so that one that is slowed down does not hold up the layer. */
const SHARES = 4;

/** Masks layers row by row on worker threads. The result does not depend on their number. */
export class RowPool {
  readonly #threads: number;
  readonly #workers: Tinypool | undefined;

  /**
   * With one thread the work is done by the caller's and no worker is started. Threads beyond those
   * that the machine has would only take memory.
   */
  constructor(wanted: number) {
    const threads = Math.min(wanted, availableParallelism());
    this.#threads = threads;
    if (threads > 1) {
      this.#workers = new Tinypool({
        filename: new URL('./row-worker.js', import.meta.url).href,
        minThreads: threads,
        maxThreads: threads,
        // Flags of the calling process, such as --input-type, are not for workers.
        execArgv: [],
      });
    }
  }

  /** Masks every row of the layer. What workers need is copied to shared memory once. */
  async maskRows(task: LayerTask): Promise<LayerMask> {
    checkTask(task);
    const { w, rows, statistics, loss } = task;
    const workers = this.#workers;
    const result = allocateResult(task, workers ? SharedArrayBuffer : ArrayBuffer);
    if (!workers) {
      maskRowRange(task, result, 0, rows);
      return result;
    }
    const message: LayerTask = {
      ...task,
      w: w.buffer instanceof SharedArrayBuffer ? w : sharedCopy(w),
      // Without the Hessian, which every message would copy.
      statistics: statistics && {
        scaler: statistics.scaler,
        sum: statistics.sum,
        variance: statistics.variance,
      },
      loss: loss && {
        gram: sharedCopy(loss.gram),
        gradient: sharedCopy(loss.gradient),
      },
    };
    const share = Math.ceil(rows / (this.#threads * SHARES));
    const ranges: RowRange[] = [];
    for (let from = 0; from < rows; from += share) {
      ranges.push({ task: message, result, from, to: Math.min(from + share, rows) });
    }
    await Promise.all(ranges.map((range) => workers.run(range)));
    if (loss && message.loss) loss.gradient.set(message.loss.gradient);
    return result;
  }

  /** Ends the workers. */
  async close(): Promise<void> {
    await this.#workers?.destroy();
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

function sharedCopy(values: Float32Array): Float32Array {
  const copy = new Float32Array(new SharedArrayBuffer(values.byteLength));
  copy.set(values);
  return copy;
}
