import { join } from 'node:path';
import { ternarize } from '../../src/methods/ternarize/method.js';
import {
  expectCleanFailure,
  filesBelow,
  inRepository,
  newFolder,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { refusesBadModels } from '../support/refuses-bad-models.js';

const folder = scratchFolder();
const vgg7 = inRepository('fixtures/vgg7/vgg7.onnx');
const images = inRepository('fixtures/vgg7/train.yaml');

refusesBadModels(ternarize, { firstLast: true }, ['--first-last']);

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
