import { z } from 'zod';
import { orders } from '../data.js';

const number = /^\d+(\.\d+)?(e[+-]?\d+)?$/i;

export const parameters = z.object({
  alpha: z
    .union(
      [
        z.number().positive(),
        z.literal('auto'),
        z
          .string()
          .regex(number)
          .refine((text) => Number(text) > 0)
          .transform(Number),
      ],
      { error: 'a number above 0, or auto' },
    )
    .optional()
    .describe(
      'a parameter is selected when it matters this many times more for the forget set than for all data; auto searches for it (default 10; assd finds its own)',
    ),
  lambda: z
    .number()
    .min(0)
    .optional()
    .describe(
      'selected parameters are multiplied by lambda / ratio: smaller cuts deeper (default 1)',
    ),
  variant: z
    .enum(['ssd', 'lfssd', 'assd'])
    .default('ssd')
    .describe('lfssd needs no labels, assd no alpha'),
  batchSize: z
    .int()
    .min(1)
    .default(64)
    .describe('examples whose mean loss is differentiated at once, for the importances'),
  fisher: z
    .enum(['batch', 'sample'])
    .default('batch')
    .describe('square the gradient of each batch, as the authors do, or of each example'),
  order: z
    .enum(orders)
    .optional()
    .describe(
      'how all data is read, which decides what a batch is (default class-sorted to forget whole classes, else retain-then-forget)',
    ),
  importanceOf: z
    .enum(['all', 'retain'])
    .default('all')
    .describe('data that the forget set is compared with: all, as the authors do, or without it'),
  importance: z
    .string()
    .optional()
    .describe('file with stored importances of all data, in the place of --retain'),
  saveImportance: z
    .string()
    .optional()
    .describe('file to store the importances of all data in, for later requests'),
  allowStaleImportance: z
    .boolean()
    .default(false)
    .describe('take --importance although the model has changed since'),
  forgetTarget: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe(
      '--alpha auto: accuracy on the forget set to reach (default chance for whole classes, else that on --eval)',
    ),
  exponent: z.number().positive().default(1).describe('power of lambda / ratio'),
  cap: z.number().min(0).default(1).describe('largest factor'),
});
