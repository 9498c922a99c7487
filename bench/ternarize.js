/**
 * What ternary weights cost, by every quantizer and repair, next to int4 and to mixed precision.
 *
 *   npm run build && node bench/ternarize.js
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { methods, operate } from '../dist/src/index.js';
import { models as fixtures } from './support/grid.js';
import { withFolder } from './support/measure.js';
import { publish, table } from './support/report.js';

const fixture = (name) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const percent = (value) => `${(100 * value).toFixed(1)} %`;

const models = [
  { ...fixtures[1], allowed: 0.01 },
  { ...fixtures[0], allowed: 0.5 },
  {
    name: 'mlp7',
    what: 'multilayer perceptron 49-128-128-10, the first layer, too: accuracy on 2,000 test images of Fashion-MNIST',
    file: fixture('mlp7/mlp7.onnx'),
    calib: fixture('mlp7/train.yaml'),
    samples: 1000,
    parameters: { firstLast: true },
    eval: fixture('mlp7/test.yaml'),
    metric: 'accuracy',
    show: percent,
    allowed: 0.01,
  },
];

const fit = { method: 'fit' };
const none = { bias: 'none' };
const float = { format: 'float' };
const ways = [
  ['absmedian', { ...fit, ...none, quantizer: 'absmedian' }],
  ['Sherry 3:4', { ...fit, ...none, quantizer: 'sherry' }],
  ['Sherry 3:4, full bias', { ...fit, quantizer: 'sherry' }],
  ['absmean', { ...fit, ...none, quantizer: 'absmean' }],
  ['absmean, lambda bias (Tequila untrained)', { ...fit, bias: 'lambda', quantizer: 'absmean' }],
  ['absmean, dead bias', { ...fit, bias: 'dead', quantizer: 'absmean' }],
  ['TWN', { ...fit, ...none, quantizer: 'twn' }],
  ['TWN, full bias', { ...fit, quantizer: 'twn' }],
  ['fit', { ...fit, ...none }],
  ['fit, dead bias', { ...fit, bias: 'dead' }],
  ['fit, full bias', fit],
  ['asymmetric, full bias (floats)', { ...fit, ...float, quantizer: 'asymmetric' }],
  ['GPTQ', { method: 'gptq', ...none }],
  ['GPTQ, full bias', { method: 'gptq' }],
  ['gptq-cd', { ...none }],
  ['gptq-cd, full bias: the default', {}],
  ['the same, --oneshot', { oneshot: true }],
  ['4 levels', { ...none, levels: 4 }],
  ['4 levels, full bias', { levels: 4 }],
  ['int4, rounded to nearest', { ...fit, ...none, levels: 16 }],
  ['int4, gptq-cd, full bias', { levels: 16 }],
  ['mixed auto', { mixed: 'auto' }],
  ['mixed auto, allowed what int4 loses', { mixed: 'auto' }, 'int4, rounded to nearest'],
];

/** Layers in all ways alike: nothing is held back for what it loses. */
const everyLayer = { maxLayerError: 1e9 };

await withFolder(async (folder) => {
  const body = [];
  for (const model of models) {
    const { metric, show, allowed } = model;
    const rows = [];
    let before;
    const losses = new Map();
    for (const [name, parameters, like] of ways) {
      process.stderr.write(`${model.name}: ${name}\n`);
      const isMixed = parameters.mixed !== undefined;
      const { comparison, layers } = await operate({
        method: methods.ternarize,
        parameters: { ...model.parameters, ...(isMixed ? {} : everyLayer), ...parameters },
        model: model.file,
        output: join(folder, 'out.onnx'),
        force: true,
        calib: model.calib,
        samples: model.samples,
        eval: model.eval,
        gates: isMixed
          ? { maxDrop: [`${metric}=${like ? losses.get(like) : allowed}`] }
          : undefined,
        threads: 2,
      });
      const changed = layers.filter(({ status }) => status === 'changed');
      const sum = (of) => changed.reduce((total, layer) => total + of(layer), 0);
      const weights = sum(({ bytes }) => bytes.before / 4);
      const stored = sum(({ bytes }) => bytes.after);
      const errors = changed.flatMap(({ outputError }) => outputError ?? []);
      before ??= comparison;
      const { before: old, after } = comparison.metrics;
      losses.set(name, Math.max(0, Math.abs(after[metric] - old[metric])));
      rows.push({
        ' ': name,
        [metric]: show(comparison.metrics.after[metric]),
        'KL to original': Number((comparison.fidelity?.kl ?? Number.NaN).toFixed(3)),
        'layer error': Number(
          (errors.reduce((a, b) => a + b, 0) / Math.max(1, errors.length)).toFixed(3),
        ),
        'bits a weight': Number(((8 * stored) / weights).toFixed(2)),
        'layers, kB': Math.round(stored / 1e3),
        'file, kB': Math.round(comparison.size.after.bytes / 1e3),
        layers: changed.length,
      });
    }
    body.push(
      `## ${model.name}\n\n${model.what}. Before: ${show(before.metrics.before[metric])}, ${Math.round(before.size.before.bytes / 1e3)} kB.`,
      table(rows),
      `Mixed auto: --max-drop ${metric}=${allowed}, searched on the same data as it is measured on.`,
    );
  }
  publish(
    'ternarize',
    'What ternary weights cost',
    [
      ...body,
      'Groups of 128 weights share a scale. Format ort (convolutions: five weights a byte), but where it says floats. "Layer error": the mean over layers of the share of output power that is lost on held-out examples. Every layer that can be is coded, whatever it loses (--max-layer-error), but in mixed auto.',
    ],
    'bench/ternarize.js; 128 calibration examples (mlp7: 1,000), sequential unless it says otherwise.',
  );
});
