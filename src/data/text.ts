import { dataError } from '../errors.js';
import { readText } from './bytes.js';

/** What tokens the model reads next to the ids of the tokens themselves. */
export type TokenRole = 'ids' | 'mask' | 'positions' | 'segments';

export interface TextTokenizer {
  /** Token ids as the tokenizer's own template gives them, with its special tokens. */
  encode(text: string): Int32Array;
  /** The same with at most `length` tokens: the text is cut at its end, special tokens are kept. */
  encodeTruncated(text: string, length: number): Int32Array;
  /** Id of the padding token; 0 when it has none. */
  padding: number;
}

/** The part of `@huggingface/tokenizers` that is used; its own declarations do not resolve under NodeNext. */
interface Encoder {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[] };
}

/** Loads a `tokenizer.json`. */
export async function loadTokenizer(path: string): Promise<TextTokenizer> {
  const { Tokenizer } = await import('@huggingface/tokenizers');
  const text = await readText(path);
  let encoder: Encoder;
  let definition: unknown;
  try {
    definition = JSON.parse(text);
    encoder = new Tokenizer(definition, {});
  } catch (cause) {
    throw dataError('not a usable tokenizer.json', {
      where: path,
      got: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
  const run = (input: string, special: boolean) => {
    const { ids } = encoder.encode(input, { add_special_tokens: special });
    const unknown = ids.findIndex((id) => !Number.isInteger(id));
    if (unknown >= 0)
      throw dataError('the tokenizer has no id for part of the text', {
        where: path,
        got: `token ${unknown} of ${JSON.stringify(input.slice(0, 60))}`,
      });
    return Int32Array.from(ids as number[]);
  };
  return {
    encode: (input) => run(input, true),
    encodeTruncated: (input, length) => truncate(run(input, true), () => run(input, false), length),
    padding: paddingId(definition),
  };
}

/**
 * Cuts `ids` (prefix, text, suffix) to `length` by shortening the text, whose own ids `bare` gives.
 */
export function truncate(ids: Int32Array, bare: () => Int32Array, length: number): Int32Array {
  if (ids.length <= length) return ids;
  const text = bare();
  const special = ids.length - text.length;
  let prefix = 0;
  while (prefix < special && !text.every((id, i) => id === ids[prefix + i])) prefix++;
  const suffix = special - prefix;
  const kept = ids.slice(0, length);
  if (suffix > 0 && suffix <= length) kept.set(ids.subarray(ids.length - suffix), length - suffix);
  return kept;
}

function paddingId(definition: unknown): number {
  const { padding, added_tokens: added } = definition as {
    padding?: { pad_id?: unknown } | null;
    added_tokens?: { id?: unknown; content?: unknown }[];
  };
  const named = added?.find((token) => /^[[<|]*pad[\]>|]*$/i.test(String(token.content)));
  const id = padding?.pad_id ?? named?.id;
  return typeof id === 'number' && Number.isInteger(id) ? id : 0;
}

export interface Window {
  /** Which text, and the half-open range of its tokens. */
  text: number;
  start: number;
  end: number;
}

/** Windows of `size` tokens side by side; the last one of each text is shorter, and kept if it has 2 tokens. */
export function cutWindows(lengths: number[], size: number): Window[] {
  const windows: Window[] = [];
  for (const [text, length] of lengths.entries())
    for (let start = 0; start + 2 <= length; start += size)
      windows.push({ text, start, end: Math.min(start + size, length) });
  return windows;
}

/** Values of one role for `ids`: the ids, ones, 0 to n - 1, or zeros. */
export function roleValues(role: TokenRole, ids: Int32Array): Int32Array {
  if (role === 'ids') return ids;
  if (role === 'positions') return Int32Array.from(ids, (_, i) => i);
  return new Int32Array(ids.length).fill(role === 'mask' ? 1 : 0);
}
