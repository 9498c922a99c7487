import { dataError } from '../errors.js';
import { auxiliaryKind, missingInput, numeric } from './auxiliary.js';
import type { Card } from './card.js';
import type { Column } from './columns.js';
import { constantsOf } from './constants.js';
import { fromNumbers, isInteger } from './dtypes.js';
import { readLabels } from './labels.js';
import { cutWindows, roleValues, type TextTokenizer, type TokenRole, type Window } from './text.js';
import type { Dataset, InputSpec, Task, TensorData } from './types.js';

const DEFAULT_SEQUENCE = 128;

export interface Texts {
  /** One per record; a plain text file is a single one. */
  texts: string[];
  labels?: Column;
  files: string[];
}

/**
 * Token sequences from texts. For classification and regression each text is one example, cut to `sequence`
 * tokens; otherwise each text is cut into windows of `sequence` tokens side by side, and a last one of at
 * least 2 tokens is kept. `sequence` is the card's, or the model's fixed length, or 128.
 * Everything is tokenized here, in time linear in the text (about 1 s per MB).
 */
export async function textDataset(
  { texts, labels: labelColumn, files }: Texts,
  tokenizer: TextTokenizer,
  specs: readonly InputSpec[],
  card: Card,
  task?: Task,
): Promise<Dataset> {
  const constants = constantsOf(specs, card);
  const roles = tokenRoles(specs, card);
  const ids = roles.find(([, role]) => role === 'ids')![0];
  const sequence = sequenceLength(ids, card);
  const labelled = labelColumn !== undefined && task !== 'lm' && task !== 'none';
  const labels = labelled ? await readLabels(labelColumn, texts.length, task) : undefined;
  const stated = labels?.task ?? task ?? 'lm';
  const perText = stated === 'classification' || stated === 'regression';
  const encoded = texts.map((text) =>
    perText ? tokenizer.encodeTruncated(text, sequence) : tokenizer.encode(text),
  );
  const lengths = encoded.map((tokens) => tokens.length);
  const windows = perText
    ? lengths.map((end, text): Window => ({ text, start: 0, end }))
    : cutWindows(lengths, sequence);
  const empty = windows.find(({ start, end }) => start === end);
  if (empty)
    throw dataError('the text has no tokens', { where: `${card.file}, text ${empty.text}` });
  return {
    path: card.file,
    length: windows.length,
    files,
    task: stated,
    label: perText ? labels?.label : undefined,
    constants,
    padding: { [ids.name]: tokenizer.padding },
    async example(i) {
      const { text, start, end } = windows[i];
      const tokens = encoded[text].subarray(start, end);
      const dims = [tokens.length];
      const inputs = roles.map(([spec, role]): [string, TensorData] => {
        const dtype = numeric(spec);
        const where = `input ${spec.name}`;
        return [
          spec.name,
          { dtype, dims, data: fromNumbers(roleValues(role, tokens), dtype, where) },
        ];
      });
      const label = perText
        ? await labels?.of(i)
        : ({ dtype: 'int64', dims, data: BigInt64Array.from(tokens, BigInt) } as const);
      return { inputs: Object.fromEntries(inputs), tokens: tokens.length, label };
    },
  };
}

/** Which inputs take what of the tokens; the ids go to the card's input, or the one that is named for them. */
function tokenRoles(specs: readonly InputSpec[], card: Card): [InputSpec, TokenRole][] {
  const roles: [InputSpec, TokenRole][] = [];
  const open: InputSpec[] = [];
  for (const spec of specs) {
    const { tokens, value } = card.inputs?.[spec.name] ?? {};
    if (tokens) roles.push([spec, tokens]);
    else if (value === undefined && !auxiliaryKind(spec)) open.push(spec);
  }
  if (!roles.some(([, role]) => role === 'ids')) {
    const integers = open.filter(({ dtype }) => isInteger(dtype));
    const ids = integers.find(({ name }) => /ids?$|tokens?$/i.test(name)) ?? integers[0];
    if (!ids)
      throw dataError('the model has no input for token ids', {
        where: card.file,
        got: `inputs ${specs.map(({ name, dtype }) => `${name} (${dtype})`).join(', ')}`,
      });
    roles.push([ids, 'ids']);
    open.splice(open.indexOf(ids), 1);
  }
  if (open.length > 0) throw missingInput(open[0]);
  return roles;
}

function sequenceLength({ name, dims }: InputSpec, { sequence, file }: Card): number {
  const fixed = dims.at(-1);
  if (typeof fixed !== 'number') return sequence ?? DEFAULT_SEQUENCE;
  if (sequence !== undefined && sequence > fixed)
    throw dataError('the sequence is longer than the model takes', {
      where: `${file}, input ${name}`,
      expected: `at most ${fixed} tokens`,
      got: `${sequence}`,
    });
  return sequence ?? fixed;
}
