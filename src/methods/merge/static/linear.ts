import { z } from 'zod';
import { usageError } from '../../../errors.js';
import { weightedSum } from '../maths/linear.js';
import { bnParameter } from '../prepare.js';
import { staticMethod } from './static-method.js';

const soups = {
  title:
    'Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time',
  arxiv: '2203.05482',
};

export const linear = staticMethod({
  name: 'linear',
  summary: 'Merge models by a weighted mean of their weights (of two: WiSE-FT).',
  references: [
    { title: 'Robust fine-tuning of zero-shot models (WiSE-FT)', arxiv: '2109.01903' },
    soups,
  ],
  parameters: z.object({
    weights: z
      .string()
      .optional()
      .describe('of each model, in order, with commas: 0.3,0.7 (default: all alike)'),
    normalize: z
      .boolean()
      .default(true)
      .describe('divide the weights by their sum (--no-normalize: not)'),
    bn: bnParameter,
  }),
  examples: [
    '<%= config.bin %> merge linear a.onnx b.onnx -o out.onnx --weights 0.3,0.7',
    '<%= config.bin %> merge linear a.onnx b.onnx -o out.onnx --weights 0.5,0.5 --eval test.npz --sweep 21',
  ],
  models: 'some',
  fromBase: false,
  elementwise: true,

  merger({ weights, normalize }, { models }) {
    const given =
      weights === undefined ? models.map(() => 1) : parseWeights(weights, models.length);
    const sum = given.reduce((a, b) => a + b, 0);
    if (normalize && !(sum > 0))
      throw usageError('The weights cannot be normalised.', {
        expected: '--weights with a sum above 0, or --no-normalize',
        got: `a sum of ${sum}`,
      });
    const shares = normalize || weights === undefined ? given.map((w) => w / sum) : given;
    return (values, { role }) => {
      const merged = weightedSum(values, shares);
      if (role === 'variance') keepPositive(merged);
      return merged;
    };
  },
});

export const soup = staticMethod({
  name: 'soup',
  summary: 'Merge models by the plain mean of their weights (uniform soup).',
  references: [soups],
  parameters: z.object({ bn: bnParameter }),
  examples: ['<%= config.bin %> merge soup a.onnx b.onnx c.onnx -o out.onnx'],
  models: 'some',
  fromBase: false,
  elementwise: true,

  merger(_given, { models }) {
    const shares = models.map(() => 1 / models.length);
    return (values) => weightedSum(values, shares);
  },
});

function parseWeights(text: string, models: number): number[] {
  const weights = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  if (weights.length === models && weights.every(Number.isFinite)) return weights;
  throw usageError('--weights cannot be read.', {
    expected: `${models} numbers with commas between them, one for each model`,
    got: text,
  });
}

/** Where weights are below 0 or above 1 a variance may come out negative. */
export function keepPositive(variance: Float32Array): void {
  for (let i = 0; i < variance.length; i++) if (!(variance[i] >= 1e-12)) variance[i] = 1e-12;
}
