import type { Rule } from '../rule.js';
import * as activations from './activations.js';
import * as arithmetic from './arithmetic.js';
import * as contrib from './contrib.js';
import * as normalization from './normalization.js';
import * as pooling from './pooling.js';
import * as shape from './shape.js';

const standard = { ...activations, ...arithmetic, ...normalization, ...pooling, ...shape };

/** One rule per op, by the op's name; ops outside the standard domain with their domain. */
export const rules: ReadonlyMap<string, Rule> = new Map([
  ...Object.entries(standard),
  ...Object.entries(contrib).map(([op, rule]) => [`com.microsoft.${op}`, rule] as const),
]);
