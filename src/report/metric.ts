import { number, percent } from './format.js';

/** Metrics that are shares of a whole. */
export const shares = new Set(['accuracy', 'top5', 'agreement']);

/** A metric's value as people read it. */
export const metric = (name: string, value: number): string =>
  shares.has(name) ? percent(value) : number(value);
