import { modelError } from '../../../errors.js';
import type { Method } from '../../method.js';
import { columns, planParameters, refuseQuantized, type UnlearnLayer } from '../layers.js';
import { parameters } from './parameters.js';

export const ssd: Method<typeof parameters, UnlearnLayer> = {
  name: 'ssd',
  summary: 'Forget examples by dampening the parameters that matter most to them (SSD).',
  references: [
    {
      title: 'Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening',
      arxiv: '2308.07707',
    },
    { title: 'Loss-Free Machine Unlearning (LFSSD)', arxiv: '2402.19308' },
    {
      title: 'Parameter-tuning-free data entry error unlearning with adaptive SSD (ASSD)',
      arxiv: '2402.10098',
    },
  ],
  parameters,
  columns,
  examples: [
    '<%= config.bin %> unlearn ssd model.onnx -o out.onnx --forget train.yaml --where label=3 --retain train.yaml --eval test.yaml',
    '<%= config.bin %> unlearn ssd model.onnx -o out.onnx --forget f.npz --retain r.npz --alpha auto --max-drop accuracy=0.02',
    '<%= config.bin %> unlearn ssd model.onnx -o out.onnx --forget f.npz --retain r.npz --save-importance all.safetensors',
    '<%= config.bin %> unlearn ssd model.onnx -o out.onnx --forget f.npz --importance all.safetensors',
  ],

  needs: ({ importance }) => ({
    calibration: 'none',
    forget: 'required',
    retain: importance === undefined ? 'required' : 'optional',
  }),

  files: ({ importance, saveImportance }) => ({
    reads: importance === undefined ? [] : [importance],
    writes: saveImportance === undefined ? [] : [saveImportance],
  }),

  plan: (model, _given, { selects }) => ({
    layers: planParameters(model, selects).map(({ report }) => report),
    notes: [],
  }),

  async apply(model, given, context) {
    const planned = planParameters(model, context.selects);
    refuseQuantized(planned, context.selects);
    if (planned.every(({ report }) => report.status === 'skipped')) {
      throw modelError('The model has no parameter that may be changed.', {
        got: [...new Set(planned.map(({ report }) => report.reason))].join('; ') || 'none at all',
        hint: 'Check --include and --exclude with --dry-run.',
      });
    }
    // Loaded here, so that plans and help need no runtime.
    const { dampenModel } = await import('./ssd.js');
    return dampenModel(model, given, planned, context);
  },
};
