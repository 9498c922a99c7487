import type { z } from 'zod';
import type { Method } from '../../method.js';
import { columns, planParameters, type UnlearnLayer } from '../layers.js';
import type { LessonName } from './lessons.js';
import { trainingParameters } from './training-parameters.js';

type Training = ReturnType<typeof trainingParameters>;
type Baseline = Method<Training, UnlearnLayer>;

/** A method that merely trains the model further, for comparison. */
const baseline = (
  name: LessonName,
  own: Pick<Baseline, 'summary' | 'references' | 'parameters' | 'needs'>,
): Baseline => ({
  name,
  ...own,
  columns,
  examples: [
    `<%= config.bin %> unlearn ${name} model.onnx -o out.onnx --forget train.yaml --where label=3 --retain train.yaml --eval test.yaml`,
    `<%= config.bin %> unlearn ${name} model.onnx -o out.onnx --forget f.npz --retain r.npz --epochs 2 --learning-rate 0.001`,
  ],
  plan: (model, _given, { selects }) => ({
    layers: planParameters(model, selects).map(({ report }) => report),
    notes: [],
  }),
  async apply(model, given: z.infer<Training>, context) {
    // Loaded here, so that plans and help need no runtime.
    const { retrain } = await import('./retrain.js');
    return retrain(model, given, context, name);
  },
});

export const finetune = baseline('finetune', {
  summary: 'Forget by training on what is to be kept (baseline).',
  references: [],
  parameters: trainingParameters({
    epochs: 5,
    optimizer: 'sgd',
    learningRate: 0.005,
    momentum: 0.9,
    weightDecay: 5e-4,
    batchSize: 64,
  }),
  needs: () => ({ calibration: 'none', forget: 'required', retain: 'required' }),
});

export const amnesiac = baseline('amnesiac', {
  summary: 'Forget by training with wrong labels on what is to be forgotten (baseline).',
  references: [{ title: 'Amnesiac Machine Learning', arxiv: '2010.10981' }],
  parameters: trainingParameters({
    epochs: 3,
    optimizer: 'adam',
    learningRate: 1e-4,
    momentum: 0,
    weightDecay: 0,
    batchSize: 128,
  }),
  needs: () => ({ calibration: 'none', forget: 'required', retain: 'required' }),
});

export const gradientAscent = baseline('gradient-ascent', {
  summary: 'Forget by ascending the loss on what is to be forgotten (baseline).',
  references: [],
  parameters: trainingParameters({
    epochs: 1,
    optimizer: 'sgd',
    learningRate: 3e-4,
    momentum: 0.9,
    weightDecay: 0,
    batchSize: 64,
  }),
  needs: () => ({ calibration: 'none', forget: 'required', retain: 'optional' }),
});
