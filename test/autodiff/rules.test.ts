import { rules } from '../../src/autodiff/rules/index.js';
import { cases as activations } from './cases/activations.js';
import { cases as arithmetic } from './cases/arithmetic.js';
import { cases as conv } from './cases/conv.js';
import { cases as einsum } from './cases/einsum.js';
import { cases as indexing } from './cases/indexing.js';
import { cases as matmul } from './cases/matmul.js';
import { cases as normalization } from './cases/normalization.js';
import { cases as pooling } from './cases/pooling.js';
import { cases as reductions } from './cases/reductions.js';
import { cases as resize } from './cases/resize.js';
import { cases as shape } from './cases/shape.js';
import { cases as softmax } from './cases/softmax.js';
import { checkGradient } from './check-gradient.js';

const families = {
  activations,
  arithmetic,
  conv,
  einsum,
  indexing,
  matmul,
  normalization,
  pooling,
  reductions,
  resize,
  shape,
  softmax,
};

/** Ops that came to their rules. */
const tested = new Set<string>();

for (const [family, cases] of Object.entries(families)) {
  describe(`rules of ${family}`, () => {
    test.each(cases.map((c) => [c.name, c] as const))('%s', async (_, c) => {
      await checkGradient(c, 1, tested);
    });
  });
}

test('every rule has a test', () => {
  expect([...rules.keys()].filter((op) => !tested.has(op))).toEqual([]);
});
