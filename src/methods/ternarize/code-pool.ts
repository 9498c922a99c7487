import { RowWorkers, shared } from '../row-workers.js';
import { type CodingTask, codeRows } from './maths/code-rows.js';
import { allocateCodes, type Granularity, type LayerCodes } from './maths/codes.js';
import { makeQuantizer } from './maths/quantizers.js';

/** Codes layers row by row on worker threads. The result does not depend on their number. */
export class CodePool {
  readonly #workers: RowWorkers;

  /** With one thread the work is done by the caller's. */
  constructor(threads: number) {
    this.#workers = new RowWorkers(new URL('./code-worker.js', import.meta.url), threads);
  }

  /** Memory that workers see, if there are any: for what tasks are made of. */
  get Memory(): ArrayBufferConstructor | SharedArrayBufferConstructor {
    return this.#workers.active ? SharedArrayBuffer : ArrayBuffer;
  }

  /** @param from codes of 'gptq', for 'gptq-cd' to go on from; they stay as they are */
  async code(wanted: CodingTask, granularity: Granularity, from?: LayerCodes): Promise<LayerCodes> {
    const task = { ...wanted, started: from !== undefined };
    const { layer, quantizer, hessian, factor } = task;
    const { offsets } = makeQuantizer(quantizer);
    const codes = allocateCodes(layer, granularity, { offsets, Memory: this.Memory });
    if (from) {
      codes.codes.set(from.codes);
      codes.scales.set(from.scales);
      if (from.offsets) codes.offsets?.set(from.offsets);
    }
    // Rows that share one scale cannot be divided.
    if (!this.#workers.active || codes.shared) {
      codeRows(task, codes);
      return codes;
    }
    const message: CodingTask = {
      ...task,
      layer: { ...layer, w: shared(layer.w) },
      hessian: hessian && {
        ...hessian,
        // A fit by itself reads no more than the diagonal.
        full: task.method === 'fit' ? undefined : hessian.full && shared(hessian.full),
      },
      factor: factor && shared(factor),
    };
    await this.#workers.run(layer.rows, (share) => ({ task: message, codes, ...share }));
    return codes;
  }

  /** Ends the workers. */
  async close(): Promise<void> {
    await this.#workers.close();
  }
}
