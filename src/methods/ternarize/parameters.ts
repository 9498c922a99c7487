import { z } from 'zod';
import { usageError } from '../../errors.js';
import type { Granularity } from './maths/codes.js';
import type { QuantizerName } from './maths/quantizers.js';

export const parameters = z.object({
  method: z
    .enum(['gptq-cd', 'gptq', 'fit'])
    .optional()
    .describe(
      'how codes are chosen: one by one, later weights making up for what is lost, refined by coordinate descent; without the descent; or each group by itself (default gptq-cd with --calib, else fit)',
    ),
  quantizer: z
    .enum(['fit', 'absmean', 'absmedian', 'twn', 'twn-0.75', 'sherry', 'asymmetric'])
    .default('fit')
    .describe(
      'thresholds and scales of ternary weights: the least squared error, those of BitNet b1.58 and Tequila, their median, Ternary Weight Networks with 0.7 or 0.75, three of four, or with an offset (for study)',
    ),
  levels: z
    .union(
      [
        z.literal([3, 4, 16, 256]),
        z
          .string()
          .regex(/^(3|4|16|256)$/)
          .transform((text) => Number(text) as 3 | 4 | 16 | 256),
      ],
      { error: '3, 4, 16 or 256' },
    )
    .default(3)
    .describe(
      'values of a weight, times its scale: 3 is {-1, 0, 1}; 4 is {-2, -1, 0, 1}, in the same two bits; 16 and 256 are int4 and int8 (15 and 255 values, as many on either side of 0), to compare with (default 3)',
    ),
  granularity: z
    .enum(['group', 'channel', 'tensor'])
    .optional()
    .describe(
      'what shares a scale: so many inputs of an output, all of them, or all weights (default group; channel with standard-int8)',
    ),
  group: z.int().min(1).default(128).describe('inputs that share a scale'),
  bias: z
    .enum(['full', 'dead', 'lambda', 'none'])
    .optional()
    .describe(
      'what is added to the bias for what weights lost: the mean of all of it; of what became zero; 1e-3 times the sum of those weights, as Tequila does; or nothing (default full with --calib, dead for absmean and absmedian with fit, else none)',
    ),
  oneshot: z
    .boolean()
    .default(false)
    .describe('see all layers in one pass of the original model, not one after the other'),
  mixed: z
    .enum(['auto'])
    .optional()
    .describe(
      'auto gives each layer 3, 4, 16 or 256 levels, or leaves it: the fewest bytes that --max-drop allows, or --max-size',
    ),
  maxLayerError: z
    .number()
    .gt(0)
    .default(0.35)
    .describe(
      'layers that lose more than this share of their output power, on calibration data that took no part, stay as they are',
    ),
  firstLast: z
    .boolean()
    .default(false)
    .describe('also the first layers, which read raw inputs, and the last'),
  format: z
    .enum(['ort', 'ort4', 'standard', 'standard-int8', 'float', 'auto'])
    .default('ort')
    .describe(
      'two bits in MatMulNBits; four, for ONNX Runtime before 1.29; five weights a byte in standard ops, unpacked at load; the same, computed in integers; floats, for study; or by the rows of --batch',
    ),
  batch: z
    .int()
    .min(1)
    .optional()
    .describe('rows that a layer computes at once, for --format auto: tokens times sequences'),
  pack: z
    .enum(['trits'])
    .optional()
    .describe('with ort: five weights a byte in the file, made two bits at load'),
});

export type TernarizeParameters = z.infer<typeof parameters>;

export type Levels = TernarizeParameters['levels'];
export type Coding = NonNullable<TernarizeParameters['method']>;
export type Bias = NonNullable<TernarizeParameters['bias']>;
export type Format = Exclude<TernarizeParameters['format'], 'auto'>;

/** Rows at once from which integer products are faster than two-bit ones, as measured. */
const manyRows = 8;

/** The parameters with every default settled. */
export interface Settings {
  coding: Coding;
  quantizerOf: (levels: Levels) => QuantizerName;
  levels: Levels;
  granularity: Granularity;
  bias: Bias;
  oneshot: boolean;
  maxLayerError: number;
  firstLast: boolean;
  format: Format;
  pack?: 'trits';
}

/** Quantizers whose scales are too small for their codes: only a refit makes up for it. */
const rawScales = new Set(['absmean', 'absmedian']);

/** @throws {ResectError} exit 2 for parameters that exclude each other */
export function settle(given: TernarizeParameters, calibrated: boolean): Settings {
  const format = formatOf(given);
  const coding = given.method ?? (calibrated ? 'gptq-cd' : 'fit');
  if (coding !== 'fit' && !calibrated)
    throw usageError(`--method ${coding} needs calibration data.`, {
      expected: '--calib DATA',
      hint: 'Without data only --method fit can be used.',
    });
  const settings: Settings = {
    coding,
    quantizerOf: (levels) => quantizerOf(given, levels),
    levels: given.levels,
    granularity: granularityOf(given, format),
    bias: biasOf(given, coding, calibrated),
    oneshot: given.oneshot,
    maxLayerError: given.maxLayerError,
    firstLast: given.firstLast,
    format,
    pack: given.pack,
  };
  refuseCombinations(given, settings);
  return settings;
}

function formatOf({ format, batch }: TernarizeParameters): Format {
  if (format === 'auto') {
    if (batch === undefined)
      throw usageError('--format auto needs to know how many rows are computed at once.', {
        expected: '--batch N, e.g. 1 for a decoder that writes one token after the other',
      });
    return batch > manyRows ? 'standard-int8' : 'ort';
  }
  if (batch !== undefined)
    throw usageError('--batch only helps --format auto to choose.', {
      expected: '--format auto',
      got: `--format ${format}`,
    });
  return format;
}

function granularityOf(
  { granularity, group }: TernarizeParameters,
  format: Format,
): Settings['granularity'] {
  const chosen = granularity ?? (format === 'standard-int8' ? 'channel' : 'group');
  if (chosen !== 'group') return chosen;
  if (format === 'standard-int8')
    throw usageError('Integer products need one scale for each output.', {
      expected: '--granularity channel or tensor with --format standard-int8',
      got: '--granularity group',
    });
  if ((format === 'ort' || format === 'ort4') && group % 32 !== 0)
    throw usageError('MatMulNBits has fast kernels for blocks of 32, 64 and 128 only.', {
      expected: '--group with a multiple of 32',
      got: String(group),
      hint: 'Groups of any size can be stored with --format standard.',
    });
  return { group };
}

function quantizerOf({ quantizer }: TernarizeParameters, levels: Levels): QuantizerName {
  if (levels === 4) return 'four-level';
  if (levels === 16) return 'int4';
  if (levels === 256) return 'int8';
  return quantizer === 'twn' ? 'twn-0.7' : quantizer;
}

function biasOf(
  { bias, quantizer, levels }: TernarizeParameters,
  coding: Coding,
  calibrated: boolean,
): Bias {
  const raw = coding !== 'gptq-cd' && levels === 3 && rawScales.has(quantizer);
  const chosen =
    bias ?? (!calibrated ? 'none' : !raw ? 'full' : coding === 'fit' ? 'dead' : 'none');
  if ((chosen === 'full' || chosen === 'dead') && !calibrated)
    throw usageError(`--bias ${chosen} is made of the mean of each layer's input.`, {
      expected: '--calib DATA, or --bias lambda or none',
    });
  if (chosen === 'full' && raw)
    throw usageError(`--bias full is harmful with the scales of ${quantizer}.`, {
      expected: '--bias dead, or --quantizer fit',
      hint: 'They shrink what varies, while the bias restores the mean in full.',
    });
  if (chosen === 'dead' && coding !== 'fit')
    throw usageError(`--bias dead repairs twice what --method ${coding} has repaired.`, {
      expected: '--bias full, or --method fit',
    });
  return chosen;
}

function refuseCombinations(given: TernarizeParameters, settings: Settings): void {
  const { quantizer, levels, pack, mixed } = given;
  const { coding, format } = settings;
  if (levels !== 3 && quantizer !== 'fit')
    throw usageError('--quantizer is for three levels.', {
      expected: '--levels 3',
      got: `--levels ${levels} --quantizer ${quantizer}`,
    });
  if (quantizer === 'sherry' && coding !== 'fit')
    throw usageError('Three of four weights are chosen together: not one by one.', {
      expected: '--method fit with --quantizer sherry',
      got: `--method ${coding}`,
    });
  if (quantizer === 'asymmetric' && format !== 'float')
    throw usageError('Packed formats have no room for offsets.', {
      expected: '--format float with --quantizer asymmetric, or another quantizer',
      got: `--format ${format}`,
    });
  if (pack && format !== 'ort')
    throw usageError('--pack is another form of --format ort.', {
      expected: '--format ort',
      got: `--format ${format}`,
      hint: 'standard and standard-int8 hold five weights a byte without it.',
    });
  if (mixed && (levels !== 3 || quantizer !== 'fit'))
    throw usageError('--mixed auto chooses levels by itself.', {
      expected: 'neither --levels nor --quantizer',
    });
}
