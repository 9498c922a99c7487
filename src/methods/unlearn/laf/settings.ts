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

/** Fewer pairs of steps than this seldom forget much at the published rates. */
const few = 1000;

/**
 * Fills in what depends on the network and the data.
 * @param extractor the number of its parameters
 * @param perEpoch pairs of steps in an epoch
 */
export function settle(given: LafParameters, extractor: number, perEpoch: number): LafSettings {
  const recipe = extractor > large ? recipes.large : recipes.small;
  const { epochs = recipe.epochs, latent = recipe.latent } = given;
  const steps = epochs * perEpoch;
  const factor = Math.min(mostRaised, Math.max(1, recipe.pairs / steps));
  const { unlearnRate = recipe.unlearnRate * factor, alignRate = recipe.alignRate * factor } =
    given;
  const literal = given.unlearnRate !== undefined && given.alignRate !== undefined;
  const enough = few / (literal ? 1 : factor);
  const note = [
    `${steps} pairs of steps at rates ${show(unlearnRate)} and ${show(alignRate)}`,
    !literal && factor > 1
      ? `: the published ones times ${show(factor)}, as published runs have ${recipe.pairs} steps`
      : '',
    steps < enough
      ? `. ${literal ? 'WARNING: so few' : 'So few'} may forget little: if so, try --epochs ${Math.ceil((enough / steps) * epochs)}, or higher rates`
      : '',
  ].join('');
  return { ...given, epochs, latent, unlearnRate, alignRate, note };
}

const show = (value: number): string => String(Number(value.toPrecision(3)));
