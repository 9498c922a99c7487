import { z } from 'zod';
import { usageError } from '../../../errors.js';
import { bnParameter } from '../prepare.js';

export const modes = ['batch', 'sample', 'static', 'cluster'] as const;

/** What both dynamic methods take. */
export const dynamicParameters = {
  scores: z
    .string()
    .optional()
    .describe('the output with the scores of classes (default: the first with floats)'),
  multiLabel: z
    .boolean()
    .default(false)
    .describe('labels do not exclude each other: a Sigmoid, not a Softmax, makes probabilities'),
  clusters: z
    .int()
    .min(1)
    .max(64)
    .default(4)
    .describe('with --mode cluster: merges made beforehand'),
  bn: bnParameter,
  observe: z
    .boolean()
    .default(true)
    .describe('the graph also puts out lambda and js (--no-observe: not)'),
};

export const temperature = z.number().gt(0);

export const parameters = z.object({
  mode: z
    .enum(modes)
    .default('batch')
    .describe(
      'batch: the graph merges the weights for each batch; sample: each sample gets weights of its own; static: one merge, for the mean over --calib; cluster: a few merges made beforehand, each sample takes the nearest',
    ),
  form: z
    .enum(['literal', 'centred', 'calibrated'])
    .optional()
    .describe(
      'λ of the disagreement J: σ(γJ), as published; 2σ(γJ) - 1; or σ(κ(J/τ - 1)) (default calibrated with --calib or --tau, else centred)',
    ),
  gamma: z
    .number()
    .min(0)
    .optional()
    .describe('γ, slope of the literal and the centred form (default 0.5 and 20)'),
  lmin: z.number().default(0).describe('λ where λ is least'),
  lmax: z.number().default(1).describe('λ where it is largest'),
  allowExtrapolation: z
    .boolean()
    .default(false)
    .describe('--lmin and --lmax may leave the range from 0 to 1'),
  tau: z
    .number()
    .gt(0)
    .optional()
    .describe('τ, disagreement at which λ is half way (default 3 times its mean on --calib)'),
  kappa: z.number().gt(0).default(4).describe('κ, slope of the calibrated form'),
  lambdaOn: z
    .enum(['generalist', 'expert'])
    .default('generalist')
    .describe('the model whose weights λ multiplies; the other gets 1 - λ'),
  temperature: temperature
    .default(1)
    .describe('scores are divided by this before they are compared'),
  ...dynamicParameters,
});

export type T3Parameters = z.infer<typeof parameters>;

/** The form that is meant when none is given. */
export const formOf = ({ form, tau }: T3Parameters, calibrated: boolean) =>
  form ?? (calibrated || tau !== undefined ? 'calibrated' : 'centred');

/** @throws {ResectError} exit 2 for parameters that exclude each other */
export function checkParameters(given: T3Parameters): void {
  const { lmin, lmax, allowExtrapolation, form, gamma, tau, bn, mode } = given;
  if (lmin > lmax)
    throw usageError('--lmin is larger than --lmax.', {
      expected: 'lmin <= lmax',
      got: `${lmin} and ${lmax}`,
    });
  if (!allowExtrapolation && (lmin < 0 || lmax > 1))
    throw usageError('λ would leave the range between the models.', {
      expected: '0 <= lmin <= lmax <= 1',
      got: `${lmin} and ${lmax}`,
      hint: 'Give --allow-extrapolation if that is what you want.',
    });
  if (form === 'calibrated' && gamma !== undefined)
    throw usageError('--gamma has no meaning for the calibrated form: its slope is --kappa.');
  if (form !== undefined && form !== 'calibrated' && tau !== undefined)
    throw usageError(`--tau has no meaning for the ${form} form: its slope is --gamma.`);
  refuseReestimate(bn, mode);
}

/** BatchNormalization statistics can be taken of one set of weights only. */
export function refuseReestimate(bn: string, mode: (typeof modes)[number]): void {
  if (bn === 'reestimate' && mode !== 'static')
    throw usageError('--bn reestimate takes statistics of one merge, and here there are many.', {
      expected: '--mode static',
      got: `--mode ${mode}`,
    });
}
