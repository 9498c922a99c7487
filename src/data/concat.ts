import type { Dataset } from './types.js';

/** The examples of `a`, then those of `b`. Both are for one model: what `a` fixes for all examples holds for both. */
export function concat(a: Dataset, b: Dataset): Dataset {
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
