import type { Method } from '../../method.js';
import { columns, type MergedTensor } from '../distance.js';
import { theOther } from '../models.js';
import { planMerge } from '../plan.js';
import { refuseReestimate } from '../t3/parameters.js';
import { parameters } from './parameters.js';

export const dawin: Method<typeof parameters, MergedTensor> = {
  name: 'dawin',
  summary: 'Merge a generalist and an expert at test time, by which is surer of itself (DaWin).',
  references: [
    {
      title: 'DaWin: Training-free Dynamic Weight Interpolation for Robust Adaptation',
      arxiv: '2410.03782',
    },
  ],
  parameters,
  columns,
  examples: [
    '<%= config.bin %> merge dawin --generalist g.onnx --expert e.onnx -o out.onnx',
    '<%= config.bin %> merge dawin --generalist g.onnx --expert e.onnx -o out.onnx --mode cluster --calib domain.npz',
  ],

  needs: ({ mode, offset }) => ({
    calibration: offset || mode === 'static' || mode === 'cluster' ? 'required' : 'optional',
    others: 'one',
  }),

  async plan(model, given, { selects, others }) {
    refuseReestimate(given.bn, given.mode);
    return planMerge(model, [theOther(others)], selects, given);
  },

  async apply(model, given, context) {
    refuseReestimate(given.bn, given.mode);
    // Loaded here, so that plans and help need no runtime.
    const { mergeDynamic } = await import('../dynamic/merge-dynamic.js');
    const { dawinCoefficients } = await import('./rule.js');
    return mergeDynamic(model, theOther(context.others), given, dawinCoefficients(given), context);
  },
};
