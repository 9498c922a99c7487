import { show } from '../show.js';
import type { RunRequest } from './checkpoint.js';
import { type LafParameters, recipes } from './parameters.js';

/** An extractor of more parameters is a large network. */
const large = 1_000_000;

/** Parameters with what was left open. */
export interface LafSettings extends LafParameters {
  epochs: number;
  latent: number;
  unlearnRate: number;
  alignRate: number;
  /** What the user should know of the number of steps. */
  note: string;
}

/** Rates are raised at most so many times. */
const mostRaised = 4;

/** Fewer pairs of steps than this seldom forget much at the published rates, a quarter of it at the highest here. */
const few = 1000;

/**
 * Fills in what depends on the network and the data.
 * @param extractor the number of its parameters
 * @param perEpoch pairs of steps in an epoch
 * @param earlier what was asked of the run that this one goes on from
 */
export function settle(
  given: LafParameters,
  extractor: number,
  perEpoch: number,
  earlier: RunRequest = {},
): LafSettings {
  const recipe = extractor > large ? recipes.large : recipes.small;
  const { epochs = recipe.epochs, latent = kept(earlier, 'latent') ?? recipe.latent } = given;
  const steps = epochs * perEpoch;
  const factor = Math.min(mostRaised, Math.max(1, recipe.pairs / steps));
  const unlearnRate =
    given.unlearnRate ?? kept(earlier, 'unlearn-rate') ?? recipe.unlearnRate * factor;
  const alignRate = given.alignRate ?? kept(earlier, 'align-rate') ?? recipe.alignRate * factor;
  const raised =
    factor > 1 &&
    unlearnRate === recipe.unlearnRate * factor &&
    alignRate === recipe.alignRate * factor;
  // How much a step does, next to a published one.
  const strength = Math.min(unlearnRate / recipe.unlearnRate, alignRate / recipe.alignRate);
  const enough = few / Math.min(mostRaised, strength);
  const note = [
    `${steps} pairs of steps at rates ${show(unlearnRate)} and ${show(alignRate)}`,
    raised
      ? `: the published ones times ${show(factor)}, as published runs have ${recipe.pairs} steps`
      : '',
    steps < enough
      ? `. WARNING: so few may forget little; if so, try --epochs ${Math.ceil(enough / perEpoch)}, or higher rates`
      : '',
  ].join('');
  return { ...given, epochs, latent, unlearnRate, alignRate, note };
}

const kept = (earlier: RunRequest, key: string): number | undefined =>
  earlier[key] === undefined ? undefined : Number(earlier[key]);
