import { usageError } from '../../../errors.js';
import type { Method } from '../../method.js';
import { columns, planParameters, type UnlearnLayer } from '../layers.js';
import { type LafParameters, parameters } from './parameters.js';
import { skipBehind } from './sides.js';

export const laf: Method<typeof parameters, UnlearnLayer> = {
  name: 'laf',
  summary: 'Forget examples without labels, by changing how the model represents them (LAF).',
  references: [
    { title: 'Label-Agnostic Forgetting: A Supervision-Free Unlearning', arxiv: '2404.00506' },
  ],
  parameters,
  columns,
  examples: [
    '<%= config.bin %> unlearn laf model.onnx -o out.onnx --forget train.yaml --where label=3 --retain train.yaml --eval test.yaml',
    '<%= config.bin %> unlearn laf model.onnx --forget f.npz --retain r.npz --dry-run',
    '<%= config.bin %> unlearn laf model.onnx -o out.onnx --forget f.npz --retain r.npz --split /pool/Flatten_output_0 --min-retain 0.9',
    '<%= config.bin %> unlearn laf model.onnx -o out.onnx --forget f.npz --retain r.npz --supervised-repair --repair-labels 500',
    '<%= config.bin %> unlearn laf model.onnx -o out.onnx --forget f.npz --retain r.npz --checkpoint state.safetensors --resume',
  ],

  needs: () => ({ calibration: 'none', forget: 'required', retain: 'required' }),

  files: ({ checkpoint, resume }) => ({
    reads: checkpoint !== undefined && resume ? [checkpoint] : [],
    writes: checkpoint !== undefined && !resume ? [checkpoint] : [],
  }),

  async plan(model, given, { selects }) {
    refuseContradictions(given);
    // Loaded here, so that help needs no runtime.
    const { findSplits, splitNotes } = await import('./split.js');
    const splits = await findSplits(model, given.split);
    const planned = planParameters(model, selects);
    skipBehind(planned, splits.chosen, given.supervisedRepair);
    return { layers: planned.map(({ report }) => report), notes: splitNotes(splits) };
  },

  async apply(model, given, context) {
    refuseContradictions(given);
    const { forgetRepresentations } = await import('./laf.js');
    return forgetRepresentations(model, given, context);
  },
};

function refuseContradictions({ checkpoint, resume, ...given }: LafParameters): void {
  if (resume && checkpoint === undefined)
    throw usageError('--resume goes on from a checkpoint.', { expected: '--checkpoint FILE' });
  const { supervisedRepair, repairLabels, repairEpochs, repairRate } = given;
  if (!supervisedRepair && (repairLabels ?? repairEpochs ?? repairRate) !== undefined)
    throw usageError('There is no repair to choose labels, epochs or a rate for.', {
      expected: '--supervised-repair',
    });
}
