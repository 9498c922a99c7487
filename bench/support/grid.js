// Prunes the fixture models in many ways and measures what each cost, on data the masks never saw.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { evaluate, methods, operate } from '../../dist/src/index.js';

const fixture = (name) => fileURLToPath(new URL(`../../fixtures/${name}`, import.meta.url));

/** The trained models that the project ships, and how each is measured. */
export const models = [
  {
    name: 'gpt-moby',
    what: 'language model: perplexity on the last 5 % of Moby Dick, lower is better',
    file: fixture('gpt-moby/gpt-moby.onnx'),
    calib: fixture('gpt-moby/calib.yaml'),
    eval: fixture('gpt-moby/heldout.yaml'),
    metric: 'perplexity',
    show: (value) => (value < 1000 ? value.toFixed(2) : value.toExponential(1)),
  },
  {
    name: 'resnet8',
    what: 'image classifier: accuracy on 2,000 test images of Fashion-MNIST, higher is better',
    file: fixture('resnet8/resnet8.onnx'),
    calib: fixture('resnet8/train.yaml'),
    eval: fixture('resnet8/test.yaml'),
    metric: 'accuracy',
    show: (value) => `${(100 * value).toFixed(1)} %`,
  },
];

/** Ways to prune: a mask without and with DSnoT, and SparseGPT with its weight update. */
export const ways = [
  { name: 'magnitude', parameters: { init: 'magnitude', refine: 'none' } },
  { name: 'magnitude + DSnoT', parameters: { init: 'magnitude', refine: 'dsnot' } },
  { name: 'Wanda', parameters: { init: 'wanda', refine: 'none' } },
  { name: 'Wanda + DSnoT', parameters: { init: 'wanda', refine: 'dsnot' } },
  { name: 'SparseGPT mask', parameters: { init: 'sparsegpt', refine: 'none' } },
  { name: 'SparseGPT mask + DSnoT', parameters: { init: 'sparsegpt', refine: 'dsnot' } },
  { name: 'SparseGPT with weight update', parameters: { init: 'sparsegpt', update: true } },
];

/** One row per way, one column per pattern (`{ sparsity: 0.5 }`, `{ nm: '2:4' }`); Markdown. */
export async function table(model, patterns, progress = () => {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'resect-bench-'));
  try {
    const dense = await evaluate({ model: model.file, data: model.eval, threads: 1 });
    const heads = patterns.map(({ sparsity, nm }) => nm ?? `${100 * sparsity} %`);
    const lines = [
      `**${model.name}**, ${model.what}. Dense: ${model.show(dense.metrics[model.metric])}.`,
      '',
      `| zeros in every layer | ${heads.join(' | ')} |`,
      `|---|${heads.map(() => '--:|').join('')}`,
    ];
    for (const way of ways) {
      const cells = [];
      for (const pattern of patterns) {
        progress(`${model.name}: ${way.name}, ${pattern.nm ?? pattern.sparsity}`);
        const result = await operate({
          method: methods.sparsify,
          parameters: { ...pattern, ...way.parameters },
          model: model.file,
          output: path.join(folder, 'pruned.onnx'),
          force: true,
          calib: model.calib,
          eval: model.eval,
          threads: 1,
        });
        cells.push(model.show(result.comparison.metrics.after[model.metric]));
      }
      lines.push(`| ${way.name} | ${cells.join(' | ')} |`);
    }
    return lines.join('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}
