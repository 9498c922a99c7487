import { join } from 'node:path';
import type { Method } from '../../src/methods/method.js';
import { operate } from '../../src/recipe/operation.js';
import {
  expectCleanFailure,
  filesBelow,
  flat,
  newFolder,
  outcomeOf,
  resect,
  scratchFolder,
} from './cli.js';
import { badGraphs } from './malformed-graphs.js';
import { type BadModel, badModels } from './malformed-models.js';

/** What could exhaust or block a process gets one of its own. */
const isRisky = (bad: BadModel) => /promise|pipe|device|GiB|itself/.test(bad.name);

/**
 * Tests that a method gives a clear error for every malformed model, leaves its folder as it was and
 * writes no half of a file. Graphs that no checker looks at, and whole models that have nothing for the
 * method, may fail with another code than they have for all.
 * @param flags the parameters, as the command takes them
 */
export function refusesBadModels(
  method: Method,
  parameters: Record<string, unknown>,
  flags: string[],
): void {
  const folder = scratchFolder();
  const unchecked = new Set<BadModel>(badGraphs);

  describe('malformed models', () => {
    test.each(badModels)('$name', async (bad) => {
      const { name, make } = bad;
      const own = newFolder(folder, `bad-${name.replace(/\W+/g, '-')}`);
      const out = newFolder(folder, `out-${name.replace(/\W+/g, '-')}`);
      make(own);
      const model = join(own, 'model.onnx');
      const before = filesBelow(own);
      const output = join(out, 'small.onnx');
      const outcome = isRisky(bad)
        ? await resect([method.name, model, '-o', output, ...flags], { seconds: 30 })
        : await outcomeOf(() => operate({ method, parameters, model, output, threads: 1 }));
      expect(filesBelow(own)).toEqual(before);
      if (outcome.code === 0) expect(filesBelow(out)).toEqual(['small.onnx']);
      else {
        const any = unchecked.has(bad) || bad.code === 0;
        expectCleanFailure(outcome, any ? (outcome.code ?? 1) : bad.code, /./);
        expect([2, 3, 5, 6, 7]).toContain(outcome.code);
        expect(filesBelow(out)).toEqual([]);
      }
      expect(flat(outcome.stderr)).not.toMatch(/This is a bug/);
      expect(outcome.megabytes ?? 0).toBeLessThan(500);
    });
  });
}
