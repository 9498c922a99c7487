import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { dataError } from '../errors.js';
import { readText } from './bytes.js';

const values = z
  .array(z.number())
  .min(1)
  .or(z.number().transform((value) => [value]));
const side = z.int().min(1).max(16384);
const nested: z.ZodType<Nested> = z.lazy(() => z.number().or(z.boolean()).or(z.array(nested)));
type Nested = number | boolean | Nested[];

/** Where the values of one model input come from, and what is done to them. */
const inputMapping = z
  .strictObject({
    array: z.string().optional().describe('array, column or field of the file'),
    tokens: z.enum(['ids', 'mask', 'positions', 'segments']).optional(),
    value: nested.optional().describe('the same for every example'),
    layout: z.enum(['NCHW', 'NHWC']).optional(),
    resize: z.tuple([side, side]).optional().describe('height, width'),
    channels: z.literal(1).or(z.literal(3)).optional(),
    scale: z.number().optional(),
    mean: values.optional(),
    std: values.refine((list) => list.every((std) => std > 0), 'must be above 0').optional(),
  })
  .check((ctx) => {
    const { array, tokens, value, ...preprocessing } = ctx.value;
    const sources = Object.entries({ array, tokens, value }).filter(([, v]) => v !== undefined);
    if (sources.length > 1)
      ctx.issues.push({
        code: 'custom',
        input: ctx.value,
        message: `takes only one of ${sources.map(([key]) => key).join(' and ')}`,
      });
    const [extra] = Object.keys(preprocessing);
    if (extra && (tokens !== undefined || value !== undefined))
      ctx.issues.push({
        code: 'custom',
        input: ctx.value,
        path: [extra],
        message: `does not apply to ${sources[0][0]}`,
      });
  });

const cardSchema = z.strictObject({
  file: z.string().min(1),
  task: z.enum(['classification', 'lm', 'regression', 'none']).optional(),
  tokenizer: z.string().min(1).optional(),
  inputs: z.record(z.string(), inputMapping).optional(),
  labels: z.string().optional().describe('array, column or field with the labels'),
  sequence: z.int().min(2).optional().describe('tokens per example'),
});

export type InputMapping = z.infer<typeof inputMapping>;
export type Card = z.infer<typeof cardSchema>;

export const isCard = (path: string) => /\.ya?ml$/i.test(path);

/**
 * Reads a YAML data card: which file, which of its arrays feed which inputs, and the preprocessing. Paths
 * in it are relative to the card. Throws a data error that names the key which is wrong.
 */
export async function readCard(path: string): Promise<Card> {
  const { parse } = await import('yaml');
  const text = await readText(path);
  let content: unknown;
  try {
    content = parse(text, { prettyErrors: true, logLevel: 'error' });
  } catch (cause) {
    throw dataError('the data card is not YAML', {
      where: path,
      got: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
  const result = cardSchema.safeParse(content);
  if (!result.success)
    throw dataError('the data card is not valid', { where: path, ...describe(result.error) });
  const card = result.data;
  if (isCard(card.file))
    throw dataError('a data card names a data file, not another card', { where: path });
  const absolute = (file: string) => resolve(dirname(path), file);
  return {
    ...card,
    file: card.file.split(',').map(absolute).join(','),
    tokenizer: card.tokenizer && absolute(card.tokenizer),
  };
}

/** The first complaint, as the dotted key and what is wrong with it. */
function describe({ issues: [issue] }: z.ZodError) {
  const unknown = issue.code === 'unrecognized_keys' ? [issue.keys[0]] : [];
  const key = [...issue.path, ...unknown].join('.');
  return {
    got: `${key || 'the card'}: ${unknown.length > 0 ? 'no such key' : issue.message}`,
    hint: 'Keys are file, task, tokenizer, labels, sequence and inputs; an input has array, tokens or value, and layout, resize, channels, scale, mean, std.',
  };
}
