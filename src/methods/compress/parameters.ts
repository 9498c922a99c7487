import { z } from 'zod';
import { usageError } from '../../errors.js';

const byLayer = (values: RegExp, example: string) =>
  z
    .array(z.string().regex(values, `a glob on layer names, and a number, such as ${example}`))
    .default([]);

export const parameters = z.object({
  ratio: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('fraction of the channels to remove, in every layer that allows it'),
  layerRatio: byLayer(/^.+=(0|0?\.\d+)$/, "'conv1*=0.3'").describe(
    'another ratio for layers whose name matches, GLOB=RATIO; the last that matches counts',
  ),
  bits: z
    .union(
      [
        z.int().min(2).max(16),
        z.literal(32),
        z.literal('auto'),
        z
          .string()
          .regex(/^([2-9]|1[0-6]|32)$/)
          .transform(Number),
      ],
      { error: '2 to 16, 32, or auto' },
    )
    .default(32)
    .describe(
      'bits of the weights, 2 to 16, or 32 to leave them; auto finds as few for each layer as --max-drop allows (default 32)',
    ),
  layerBits: byLayer(/^.+=([2-9]|1[0-6]|32)$/, "'conv1*=8'").describe(
    'other bits for layers whose name matches, GLOB=BITS; the last that matches counts',
  ),
  edgeBits: z
    .int()
    .min(2)
    .max(16)
    .default(8)
    .describe('least bits of the first layer and the last, which bear rounding worst'),
  method: z
    .enum(['gauss', 'udfc', 'neuron-merging', 'drop'])
    .default('gauss')
    .describe(
      'how the next layer makes up for what is lost: by Gaussian-ReLU statistics, by the closed form of UDFC, by the nearest kept channel, or not at all',
    ),
  select: z
    .enum(['greedy', 'l1', 'l2', 'gm'])
    .optional()
    .describe(
      'which channels go: those of least cost to the next layers, or of least norm, or nearest the geometric median (default greedy with gauss, l1 with drop, else l2)',
    ),
  align: z
    .int()
    .min(1)
    .max(256)
    .default(8)
    .describe(
      'kept channels are rounded up to a multiple of it, as kernels compute in such blocks',
    ),
  alpha1: z
    .number()
    .min(0)
    .default(0.01)
    .describe('weight of the biases in the closed form of UDFC'),
  alpha2: z
    .number()
    .min(0)
    .default(0.008)
    .describe('weight of the ridge in the closed form of UDFC'),
  quantScale: z
    .boolean()
    .default(false)
    .describe('with UDFC, also make up for rounding in the next layer'),
  granularity: z
    .enum(['channel', 'tensor'])
    .default('channel')
    .describe('one scale for each output channel, or for the whole weight'),
  format: z
    .enum(['qdq', 'weight-only', 'float'])
    .optional()
    .describe(
      'integer arithmetic; weights stored as integers, smaller but not faster; or rounded weights stored as floats, for study (default qdq up to 8 bits, else float)',
    ),
});

export type CompressParameters = z.infer<typeof parameters>;

export const selectionOf = ({ select, method }: CompressParameters) =>
  select ?? (method === 'gauss' ? 'greedy' : method === 'drop' ? 'l1' : 'l2');

/** Bits that integer formats can store. */
const mostStored = 8;

/** @throws {ResectError} exit 2 for parameters that exclude each other */
export function checkCombination(given: CompressParameters): void {
  const { format, bits, layerBits, edgeBits } = given;
  const chosen = [
    ...(bits === 'auto' ? [] : [bits]),
    ...layerBits.map((rule) => Number(rule.slice(rule.lastIndexOf('=') + 1))),
  ];
  const stored = format ?? formatOf(given);
  const most = Math.max(0, ...chosen.filter((b) => b < 32));
  if (stored !== 'float' && Math.max(most, most > 0 ? edgeBits : 0) > mostStored)
    throw usageError('Weights of more than 8 bits can only be studied as floats.', {
      expected: '--format float, or 2 to 8 bits',
      got: `--format ${stored} and ${Math.max(most, edgeBits)} bits`,
    });
  if (given.quantScale && given.method !== 'udfc')
    throw usageError('--quant-scale belongs to UDFC.', {
      expected: '--method udfc',
      got: `--method ${given.method}`,
      hint: 'gauss makes up for rounding by itself.',
    });
}

/** How rounded weights are stored. */
export function formatOf({ format, bits }: CompressParameters): 'qdq' | 'weight-only' | 'float' {
  return format ?? (bits === 'auto' || bits <= mostStored || bits === 32 ? 'qdq' : 'float');
}
