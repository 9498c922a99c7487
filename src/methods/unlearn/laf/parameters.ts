import { z } from 'zod';

/**
 * The authors' recipes for removing a class: from MNIST and Fashion-MNIST with a small network, from CIFAR-10
 * and SVHN with a ResNet-18. `pairs` of steps is what an epoch has there, times the epochs.
 */
export const recipes = {
  small: { epochs: 20, latent: 8, unlearnRate: 5e-5, alignRate: 1e-4, pairs: 3760 },
  large: { epochs: 40, latent: 16, unlearnRate: 1e-5, alignRate: 5e-5, pairs: 6280 },
};

const { small, large } = recipes;
const bySize = (key: keyof typeof small): string =>
  `default ${small[key]}; ${large[key]} for extractors of more than a million parameters`;
const raised = 'up to 4 times that where the forget set is small';

export const parameters = z.object({
  split: z
    .string()
    .min(1)
    .optional()
    .describe(
      'value or node at which the model is cut in extractor and classifier (default: what the last linear layer reads; --dry-run lists the places)',
    ),
  epochs: z
    .int()
    .min(1)
    .optional()
    .describe(`passes over the forget set (${bySize('epochs')})`),
  unlearnRate: z
    .number()
    .positive()
    .optional()
    .describe(`Adam's rate down the unlearning loss (${bySize('unlearnRate')}; ${raised})`),
  alignRate: z
    .number()
    .positive()
    .optional()
    .describe(`Adam's rate down the alignment loss (${bySize('alignRate')}; ${raised})`),
  temperature: z
    .number()
    .min(0.01)
    .default(20)
    .describe('of the forget set in the alignment loss: lower turns it away harder'),
  latent: z
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe(`numbers in the code of the autoencoders (${bySize('latent')})`),
  vaeEpochs: z.int().min(1).default(10).describe('passes that the autoencoders are trained for'),
  vaeRate: z.number().positive().default(1e-3).describe("Adam's rate for the autoencoders"),
  batchSize: z
    .int()
    .min(1)
    .default(32)
    .describe('examples of the forget set, and as many kept ones, in a step'),
  minRetain: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe(
      'stop when the accuracy on the retain set falls below this, and go back to the epoch before; takes labels',
    ),
  maxShift: z
    .number()
    .gt(0)
    .max(2)
    .default(0.2)
    .describe(
      'stop when kept representations have turned by more than this (mean 1 - cos), and go back to the epoch before',
    ),
  supervisedRepair: z
    .boolean()
    .default(false)
    .describe('then train the classifier on labels of the retain set (LAF+R)'),
  repairLabels: z
    .int()
    .min(1)
    .optional()
    .describe('labels that the repair may look at, drawn with --seed (default: all)'),
  repairEpochs: z.int().min(1).optional().describe('passes of the repair (default 5)'),
  repairRate: z
    .number()
    .positive()
    .optional()
    .describe("Adam's rate for the repair (default 0.001)"),
  checkpoint: z
    .string()
    .min(1)
    .optional()
    .describe('file (.safetensors) to keep the state in, after every epoch'),
  resume: z
    .boolean()
    .default(false)
    .describe('go on from what --checkpoint holds; the result is that of an uninterrupted run'),
});

export type LafParameters = z.infer<typeof parameters>;
