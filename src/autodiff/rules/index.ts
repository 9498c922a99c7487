import type { Rule } from '../rule.js';
import * as arithmetic from './arithmetic.js';
import * as matmul from './matmul.js';

/**
 * One rule per op, by the op's name; ops outside the standard domain with their domain. Normalisation
 * leaves no other form of an op than that of opset 17 or newer.
 */
export const rules: ReadonlyMap<string, Rule> = new Map(
  Object.entries({ ...arithmetic, ...matmul }),
);
