import { availableParallelism } from 'node:os';
import Tinypool from 'tinypool';

/** Shares per worker, so that one that is slowed down does not hold up the layer. */
const SHARES = 4;

/** Rows [from, to). */
export interface Rows {
  from: number;
  to: number;
}

/** Worker threads that take shares of rows which do not depend on each other. */
export class RowWorkers {
  readonly #threads: number;
  readonly #workers: Tinypool | undefined;

  /**
   * With one thread no worker is started: see `active`. Threads beyond those that the machine has would
   * only take memory.
   * @param entry the worker's module; its default export takes what `messageFor` makes
   */
  constructor(entry: URL, wanted: number) {
    this.#threads = Math.min(wanted, availableParallelism());
    if (this.#threads > 1) {
      this.#workers = new Tinypool({
        filename: entry.href,
        minThreads: this.#threads,
        maxThreads: this.#threads,
        // Flags of the calling process, such as --input-type, are not for workers.
        execArgv: [],
      });
    }
  }

  /** Whether there are workers; if not, the caller is to do the work itself. */
  get active(): boolean {
    return this.#workers !== undefined;
  }

  /** What workers fill must be in shared memory; what they read is copied unless it is, too. */
  async run(rows: number, messageFor: (share: Rows) => object): Promise<void> {
    const workers = this.#workers;
    if (!workers) throw new Error('there are no workers');
    const share = Math.ceil(rows / (this.#threads * SHARES));
    const messages: object[] = [];
    for (let from = 0; from < rows; from += share)
      messages.push(messageFor({ from, to: Math.min(from + share, rows) }));
    await Promise.all(messages.map((message) => workers.run(message)));
  }

  /** Ends the workers. */
  async close(): Promise<void> {
    await this.#workers?.destroy();
  }
}

/** The values in memory that workers see without a copy; as they are when they are there already. */
export function shared<A extends Float32Array | Float64Array>(values: A): A {
  if (values.buffer instanceof SharedArrayBuffer) return values;
  const Values = values.constructor as new (buffer: SharedArrayBuffer) => A;
  const copy = new Values(new SharedArrayBuffer(values.byteLength));
  copy.set(values);
  return copy;
}
