import { join } from 'node:path';
import { ternarize } from '../../src/methods/ternarize/method.js';
import { operate } from '../../src/recipe/operation.js';
import {
  expectCleanFailure,
  filesBelow,
  flat,
  inRepository,
  newFolder,
  outcomeOf,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { badGraphs } from '../support/malformed-graphs.js';
import { type BadModel, badModels } from '../support/malformed-models.js';

const folder = scratchFolder();
const vgg7 = inRepository('fixtures/vgg7/vgg7.onnx');
const images = inRepository('fixtures/vgg7/train.yaml');

describe('malformed models', () => {
  /** What could exhaust or block a process gets one of its own. */
  const isRisky = (bad: BadModel) => /promise|pipe|device|GiB|itself/.test(bad.name);
  const unchecked = new Set<BadModel>(badGraphs);

  test.each(badModels)('$name', async (bad) => {
    const { name, make } = bad;
    const own = newFolder(folder, `bad-${name.replace(/\W+/g, '-')}`);
    const out = newFolder(folder, `out-${name.replace(/\W+/g, '-')}`);
    make(own);
    const model = join(own, 'model.onnx');
    const before = filesBelow(own);
    const output = join(out, 'small.onnx');
    const outcome = isRisky(bad)
      ? await resect(['ternarize', model, '-o', output, '--first-last'], { seconds: 30 })
      : await outcomeOf(() =>
          operate({
            method: ternarize,
            parameters: { firstLast: true },
            model,
            output,
            threads: 1,
          }),
        );
    expect(filesBelow(own)).toEqual(before);
    if (outcome.code === 0) expect(filesBelow(out)).toEqual(['small.onnx']);
    else {
      // Some are whole, and have no layer that is large enough.
      const any = unchecked.has(bad) || bad.code === 0;
      expectCleanFailure(outcome, any ? (outcome.code ?? 1) : bad.code, /./);
      expect([2, 3, 5, 6, 7]).toContain(outcome.code);
      expect(filesBelow(out)).toEqual([]);
    }
    expect(flat(outcome.stderr)).not.toMatch(/This is a bug/);
    expect(outcome.megabytes ?? 0).toBeLessThan(500);
  });
});

test('the input is not written to, nor over, and what was packed is not packed again', async () => {
  const before = sha256(vgg7);
  const packed = join(folder, 'packed.onnx');
  expect(await resect(['ternarize', vgg7, '-o', packed])).toMatchObject({ code: 0 });
  expectCleanFailure(
    await resect(['ternarize', vgg7, '-o', vgg7, '--force']),
    7,
    /input|same file/,
  );
  expect(sha256(vgg7)).toBe(before);
  const again = await resect(['ternarize', packed, '-o', join(folder, 'again.onnx')]);
  expectCleanFailure(again, 5, /no layer whose weights could be packed/);
}, 60_000);

test('a gate that fails leaves nothing', async () => {
  const out = newFolder(folder, 'gated');
  const outcome = await resect([
    ...['ternarize', vgg7, '-o', join(out, 'small.onnx'), '--calib', images, '--samples', '40'],
    ...['--max-drop', 'cosine=0.000001'],
  ]);
  expect(outcome.code).toBe(4);
  expect(filesBelow(out)).toEqual([]);
}, 60_000);
