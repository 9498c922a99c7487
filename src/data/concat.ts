import { dataError } from '../errors.js';
import { product } from './dtypes.js';
import type { Dataset, TensorData } from './types.js';

/**
 * The examples of `a`, then those of `b`, both for one model.
 * @throws {ResectError} exit 6 when they disagree in what they fix for all examples: constants, padding
 */
export function concat(a: Dataset, b: Dataset): Dataset {
  refuseConflict(a, b, ({ constants }, name) => constants?.[name], 'value for all examples');
  refuseConflict(a, b, ({ padding }, name) => padding?.[name] ?? 0, 'padding');
  const [first, second] = [a.label, b.label];
  return {
    ...a,
    path: a.path === b.path ? a.path : `${a.path}, ${b.path}`,
    length: a.length + b.length,
    files: [...new Set([...a.files, ...b.files])],
    example: (i) => (i < a.length ? a.example(i) : b.example(i - a.length)),
    label: first && second ? (i) => (i < a.length ? first(i) : second(i - a.length)) : undefined,
  };
}

function refuseConflict(
  a: Dataset,
  b: Dataset,
  of: (dataset: Dataset, input: string) => Value,
  what: string,
): void {
  const inputs = [a.constants, b.constants, a.padding, b.padding].flatMap((o) =>
    Object.keys(o ?? {}),
  );
  for (const name of new Set(inputs)) {
    const [ours, theirs] = [of(a, name), of(b, name)];
    if (equal(ours, theirs)) continue;
    throw dataError(`two sets of data that are read as one have another ${what}`, {
      where: `input ${name}`,
      expected: `${show(ours)}, as in ${a.path}`,
      got: `${show(theirs)} in ${b.path}`,
      hint: 'Describe both by data cards that agree.',
    });
  }
}

type Value = number | TensorData | undefined;

function equal(a: Value, b: Value): boolean {
  if (typeof a !== 'object' || typeof b !== 'object') return a === b;
  const same = a.dtype === b.dtype && a.dims.join() === b.dims.join();
  for (let i = 0; same && i < product(a.dims); i++) if (a.data[i] !== b.data[i]) return false;
  return same;
}

const show = (value: Value): string =>
  typeof value === 'object' ? `${value.dtype} [${value.dims.join(', ')}]` : `${value ?? 'none'}`;
