import type { Feeds, Session } from './session.js';

/** Milliseconds per run. */
export interface Latency {
  median: number;
  lowerQuartile: number;
  upperQuartile: number;
}

/** Counted runs of each model, within this many seconds for all, but at least so many. */
const most = 31;
const least = 3;
const patience = 0.6;

/**
 * Times warm models (each has run before) on the same feeds, in turn (A B A B …), so that a drift of
 * the machine's speed hits all alike. One result per model, in their order.
 */
export async function measureLatency(
  sessions: readonly Session[],
  feeds: Feeds,
): Promise<Latency[]> {
  const times: number[][] = sessions.map(() => []);
  const end = performance.now() + patience * 1000;
  for (let i = 0; i < most && (i < least || performance.now() < end); i++) {
    for (const [m, session] of sessions.entries()) {
      const start = performance.now();
      await session.run(feeds);
      times[m].push(performance.now() - start);
    }
  }
  return times.map(quartiles);
}

/** Of run times in milliseconds. */
export function quartiles(times: readonly number[]): Latency {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (q: number) => sorted[Math.round(q * (sorted.length - 1))];
  return { median: at(0.5), lowerQuartile: at(0.25), upperQuartile: at(0.75) };
}
