import Tinypool from 'tinypool';
import type { InputSpec } from '../data/index.js';
import { type ErrorDetail, ResectError } from '../errors.js';
import type { Feeds, Session, SessionOptions } from './session.js';

/** A loaded model, wherever it runs. */
export type Runnable = Pick<Session, 'inputs' | 'outputs' | 'run' | 'release'>;

/** What `session-worker.ts` is asked to do. */
export type SessionRequest =
  | { do: 'open'; id: number; model: Uint8Array; options: SessionOptions }
  | { do: 'run'; id: number; feeds: Feeds; outputs: readonly string[] }
  | { do: 'release'; id: number };

/** What it answers: errors lose their class on the way. */
export type SessionAnswer =
  | { inputs: InputSpec[]; outputs: InputSpec[] }
  | { results: Feeds }
  | { error: { message: string; exitCode: number; detail: ErrorDetail } }
  | undefined;

/**
 * A thread in which sessions run while the caller's thread does something else, such as running others:
 * the runtime's own threads share one operator at a time, and gain little where operators are short.
 */
export class SessionThread {
  readonly #worker = new Tinypool({
    filename: new URL('./session-worker.js', import.meta.url).href,
    minThreads: 1,
    maxThreads: 1,
    // Flags of the calling process, such as --input-type, are not for workers.
    execArgv: [],
  });
  #opened = 0;

  /** As `Session.open`, for a model given as bytes. */
  async open(model: Uint8Array, options: SessionOptions): Promise<Runnable> {
    const id = this.#opened++;
    const { inputs, outputs } = (await this.#ask({ do: 'open', id, model, options })) as Extract<
      SessionAnswer,
      { inputs: InputSpec[] }
    >;
    return {
      inputs,
      outputs,
      run: async (feeds, wanted = outputs.map(({ name }) => name)) => {
        const read = Object.fromEntries(
          inputs.flatMap(({ name }) => (feeds[name] ? [[name, feeds[name]]] : [])),
        );
        const answer = await this.#ask({ do: 'run', id, feeds: read, outputs: wanted });
        return (answer as { results: Feeds }).results;
      },
      release: async () => {
        await this.#ask({ do: 'release', id });
      },
    };
  }

  async #ask(request: SessionRequest): Promise<SessionAnswer> {
    const answer: SessionAnswer = await this.#worker.run(request);
    if (!answer || !('error' in answer)) return answer;
    const { message, exitCode, detail } = answer.error;
    throw new ResectError(message, exitCode, detail);
  }

  /** Ends the thread, and what is still open in it. */
  async close(): Promise<void> {
    await this.#worker.destroy();
  }
}
