import type { Method } from '../../method.js';
import { columns, type MergedTensor } from '../distance.js';
import { theOther } from '../models.js';
import { planMerge } from '../plan.js';
import { checkParameters, formOf, parameters } from './parameters.js';

export const t3: Method<typeof parameters, MergedTensor> = {
  name: 't3',
  summary:
    'Merge a generalist and an expert at test time, by how much they disagree, inside one model (T3).',
  references: [
    {
      title: 'T3: Test-Time Model Merging in VLMs for Zero-Shot Medical Imaging Analysis',
      arxiv: '2510.27265',
    },
  ],
  parameters,
  columns,
  examples: [
    '<%= config.bin %> merge t3 --generalist g.onnx --expert e.onnx -o out.onnx --calib domain.npz',
    '<%= config.bin %> merge t3 --generalist g.onnx --expert e.onnx -o out.onnx --calib domain.npz --eval clean=test.npz --eval noise=noisy.npz --mce',
    '<%= config.bin %> merge t3 --generalist g.onnx --expert e.onnx -o out.onnx --mode sample --form centred',
    '<%= config.bin %> merge t3 --generalist g.onnx --expert e.onnx -o out.onnx --mode static --calib domain.npz',
  ],

  needs: (given) => {
    const calibrated =
      given.mode === 'static' ||
      given.mode === 'cluster' ||
      (formOf(given, false) === 'calibrated' && given.tau === undefined);
    return { calibration: calibrated ? 'required' : 'optional', others: 'one' };
  },

  async plan(model, given, { selects, others }) {
    checkParameters(given);
    return planMerge(model, [theOther(others)], selects, given);
  },

  async apply(model, given, context) {
    checkParameters(given);
    // Loaded here, so that plans and help need no runtime.
    const { mergeDynamic } = await import('../dynamic/merge-dynamic.js');
    const { t3Coefficients } = await import('./rule.js');
    return mergeDynamic(model, theOther(context.others), given, t3Coefficients(given), context);
  },
};
