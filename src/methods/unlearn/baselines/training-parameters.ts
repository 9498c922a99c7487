import { z } from 'zod';

interface Defaults {
  epochs: number;
  optimizer: 'sgd' | 'adam' | 'adamw';
  learningRate: number;
  momentum: number;
  weightDecay: number;
  batchSize: number;
}

/** How a baseline trains, with the defaults of its published form. */
export const trainingParameters = (defaults: Defaults) =>
  z.object({
    epochs: z.int().min(1).default(defaults.epochs).describe('passes over the data'),
    optimizer: z
      .enum(['sgd', 'adam', 'adamw'])
      .default(defaults.optimizer)
      .describe('how steps are made'),
    learningRate: z.number().positive().default(defaults.learningRate).describe('length of a step'),
    momentum: z.number().min(0).lt(1).default(defaults.momentum).describe('of sgd'),
    weightDecay: z
      .number()
      .min(0)
      .default(defaults.weightDecay)
      .describe('pull of the weights towards 0'),
    batchSize: z.int().min(1).default(defaults.batchSize).describe('examples in a step'),
  });
