import { dataError, usageError } from '../errors.js';
import { readText } from './bytes.js';
import { openNpy } from './npy.js';
import type { Dataset } from './types.js';

/**
 * The part of a data set that `--where` and `--indices` select, in the order of the indices.
 * `where` is `label=7`, or `label!=7`, with several labels separated by commas. With `complement`, what
 * they leave, in the order of the data.
 */
export async function slice(
  dataset: Dataset,
  {
    where,
    indices,
    complement = false,
  }: { where?: string; indices?: string; complement?: boolean },
): Promise<Dataset> {
  if (where === undefined && indices === undefined) return dataset;
  const matches = where === undefined ? () => true : labelFilter(dataset, where);
  const wanted =
    indices === undefined
      ? Array.from({ length: dataset.length }, (_, i) => i)
      : await readIndices(indices, dataset.length);
  const selected = wanted.filter(matches);
  const left = new Set(complement ? selected : []);
  const chosen = complement
    ? Array.from({ length: dataset.length }, (_, i) => i).filter((i) => !left.has(i))
    : selected;
  if (chosen.length === 0)
    throw dataError(
      complement ? 'every example is selected: none is left' : 'no example is selected',
      { where: dataset.path, got: where ?? indices },
    );
  const { label } = dataset;
  return {
    ...dataset,
    length: chosen.length,
    files: indices === undefined ? dataset.files : [...dataset.files, indices],
    example: (i) => dataset.example(chosen[i]),
    label: label && ((i) => label(chosen[i])),
  };
}

function labelFilter({ label, path }: Dataset, where: string): (i: number) => boolean {
  const [, not, list] = /^\s*label\s*(!?)=\s*(-?[\d.]+(?:\s*,\s*-?[\d.]+)*)\s*$/.exec(where) ?? [];
  if (list === undefined)
    throw usageError('`--where` is not understood', {
      expected: 'label=7, label!=7 or label=1,2',
      got: where,
    });
  if (!label)
    throw dataError('the data has no labels to select by', {
      where: path,
      got: `--where ${where}`,
    });
  const numbers = list.split(',').map(Number);
  const bad = numbers.findIndex(Number.isNaN);
  if (bad >= 0)
    throw usageError('`--where` names a label that is no number', {
      got: list.split(',')[bad].trim(),
    });
  // Labels that are stored in float32 were rounded.
  const labels = new Set(numbers.flatMap((number) => [number, Math.fround(number)]));
  return (i) => labels.has(label(i)) !== (not === '!');
}

/** Integers from a text file, one per line, or a `.npy` array; each from 0 to `length - 1`. */
async function readIndices(path: string, length: number): Promise<number[]> {
  const numbers = /\.npy$/i.test(path)
    ? Array.from(await (await (await openNpy(path)).column('data')).numbers())
    : (await readText(path))
        .split('\n')
        .flatMap((line) => line.trim() || [])
        .map(Number);
  const bad = numbers.findIndex((n) => !Number.isInteger(n) || n < 0 || n >= length);
  if (bad >= 0)
    throw dataError('not an index of the data', {
      where: `${path}, entry ${bad + 1}`,
      expected: `an integer from 0 to ${length - 1}`,
      got: `${numbers[bad]}`,
    });
  return numbers;
}
