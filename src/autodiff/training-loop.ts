import { modelError } from '../errors.js';

/** Losses of a step or means of an epoch, by name. */
export type Losses = Readonly<Record<string, number>>;

export interface TrainingLoop<B> {
  epochs: number;
  /** Epochs that an earlier run has made, which are left out. Default 0. */
  made?: number;
  /**
   * The batches of an epoch, counted from 0. A loop that is to be resumed makes them from the number of
   * the epoch alone.
   */
  batches(epoch: number): AsyncIterable<B>;
  /** Trains on a batch. */
  step(batch: B): Promise<Losses>;
  /** After every step, counted from 1 in this run. Training stops when it returns true. */
  afterStep?(step: number, losses: Losses): boolean | undefined | Promise<boolean | undefined>;
  /** After every epoch, with the means of its losses. Training stops when it returns true. */
  afterEpoch?(epoch: number, means: Losses): Promise<boolean | undefined>;
}

/** Runs a training loop. @returns steps that were made in this run */
export async function runEpochs<B>(loop: TrainingLoop<B>): Promise<number> {
  let steps = 0;
  for (let epoch = loop.made ?? 0; epoch < loop.epochs; epoch++) {
    const sums = new Map<string, number>();
    let own = 0;
    for await (const batch of loop.batches(epoch)) {
      const losses = await loop.step(batch);
      steps++;
      own++;
      for (const [name, loss] of Object.entries(losses))
        sums.set(name, (sums.get(name) ?? 0) + loss);
      if (await loop.afterStep?.(steps, losses)) return steps;
    }
    const means = Object.fromEntries([...sums].map(([name, sum]) => [name, sum / own]));
    if (await loop.afterEpoch?.(epoch, means)) return steps;
  }
  return steps;
}

/**
 * Refuses losses that are no numbers any more.
 * @param hint what to do about it
 * @throws {ResectError} exit 5
 */
export function refuseDivergence(losses: Losses, at: string, hint: string): void {
  const lost = Object.entries(losses).find(([, loss]) => !Number.isFinite(loss));
  if (lost) throw modelError('Training diverged.', { got: `${lost[0]} is ${lost[1]} ${at}`, hint });
}

/** Losses as progress shows them. */
export const showLosses = (losses: Losses): string =>
  Object.entries(losses)
    .map(([name, loss]) => `${name} ${loss.toPrecision(4)}`)
    .join(', ');
