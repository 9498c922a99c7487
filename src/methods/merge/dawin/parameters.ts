import { z } from 'zod';
import { dynamicParameters, modes, temperature } from '../t3/parameters.js';

export const parameters = z.object({
  mode: z
    .enum(modes)
    .default('sample')
    .describe(
      'sample: each sample gets weights of its own, as published; batch: one merge for each batch; static: one merge, for the mean over --calib; cluster: a few merges made beforehand, at the means of a mixture of Beta distributions',
    ),
  offset: z
    .boolean()
    .default(false)
    .describe(
      'the variant that makes up for a model that is less sure of all samples; needs --calib',
    ),
  generalistTemperature: temperature.default(1).describe('its scores are divided by this'),
  expertTemperature: temperature.default(1).describe('its scores are divided by this'),
  ...dynamicParameters,
});

export type DawinParameters = z.infer<typeof parameters>;
