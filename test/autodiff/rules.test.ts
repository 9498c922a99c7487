import { rules } from '../../src/autodiff/rules/index.js';
import { opName } from '../../src/graph/nodes.js';
import { cases as arithmetic } from './cases/arithmetic.js';
import { cases as matmul } from './cases/matmul.js';
import { checkGradient } from './check-gradient.js';

const families = { arithmetic, matmul };

for (const [family, cases] of Object.entries(families)) {
  describe(`rules of ${family}`, () => {
    test.each(cases.map((c) => [c.name, c] as const))('%s', async (_, c) => {
      await checkGradient(c);
    });
  });
}

test('every rule has a test', () => {
  const tested = new Set(
    Object.values(families).flatMap((cases) => cases.flatMap((c) => c.nodes.map(opName))),
  );
  expect([...rules.keys()].filter((op) => !tested.has(op))).toEqual([]);
});
