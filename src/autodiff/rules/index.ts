import type { Rule } from '../rule.js';
import * as activations from './activations.js';
import * as arithmetic from './arithmetic.js';
import * as conv from './conv.js';
import * as einsum from './einsum.js';
import { FusedMatMul } from './fused-matmul.js';
import * as indexing from './indexing.js';
import * as matmul from './matmul.js';
import * as normalization from './normalization.js';
import * as pooling from './pooling.js';
import * as reductions from './reductions.js';
import * as resize from './resize.js';
import * as shape from './shape.js';
import * as softmax from './softmax.js';

/**
 * One rule per op, by the op's name; ops outside the standard domain with their domain. Normalisation
 * leaves no other form of an op than that of opset 17 or newer.
 */
export const rules: ReadonlyMap<string, Rule> = new Map(
  Object.entries({
    ...activations,
    ...arithmetic,
    ...conv,
    ...einsum,
    ...indexing,
    ...matmul,
    ...normalization,
    ...pooling,
    ...reductions,
    ...resize,
    ...shape,
    ...softmax,
    'com.microsoft.FusedMatMul': FusedMatMul,
  }),
);
