import { type Feeds, Session } from './session.js';

/** Milliseconds per run. */
export interface Latency {
  median: number;
  lowerQuartile: number;
  upperQuartile: number;
}

export interface LatencyOptions {
  threads: number;
  /** Counted runs of each model. */
  runs?: number;
  /** Stop early after this many seconds, with at least five runs each. */
  seconds?: number;
}

/**
 * Times models on the same feeds, in turn (A B A B …), so that a drift of the machine's speed hits
 * all alike. One result per model, in their order.
 */
export async function measureLatency(
  models: readonly (string | Uint8Array)[],
  feeds: Feeds,
  { threads, runs = 31, seconds = 3 }: LatencyOptions,
): Promise<Latency[]> {
  const sessions: Session[] = [];
  try {
    for (const model of models) sessions.push(await Session.open(model, { threads }));
    for (let warmup = 0; warmup < 2; warmup++)
      for (const session of sessions) await session.run(feeds);
    const times: number[][] = sessions.map(() => []);
    const end = performance.now() + seconds * 1000;
    for (let i = 0; i < runs && (i < 5 || performance.now() < end); i++) {
      for (const [m, session] of sessions.entries()) {
        const start = performance.now();
        await session.run(feeds);
        times[m].push(performance.now() - start);
      }
    }
    return times.map(quartiles);
  } finally {
    for (const session of sessions) await session.release();
  }
}

function quartiles(times: number[]): Latency {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (q: number) => sorted[Math.round(q * (sorted.length - 1))];
  return { median: at(0.5), lowerQuartile: at(0.25), upperQuartile: at(0.75) };
}
