import { usageError } from '../../errors.js';

/** Which weights of a layer become zero: a fraction of them, or `n` of every `m` consecutive inputs. */
export type Pattern = { kind: 'unstructured'; sparsity: number } | NmPattern;

export interface NmPattern {
  kind: 'nm';
  n: number;
  m: number;
}

/**
 * Reads `0.6` (60 % zeros) or `2:4` (2 zeros in every 4 inputs). Sparsity lies in [0, 1), and
 * 1 <= n < m. Throws a usage error otherwise.
 */
export function parsePattern(text: string): Pattern {
  const structured = /^(\d{1,6}):(\d{1,6})$/.exec(text);
  if (structured) {
    const n = Number(structured[1]);
    const m = Number(structured[2]);
    if (n >= 1 && n < m) return { kind: 'nm', n, m };
  } else if (/^\d*\.?\d+(e-?\d+)?$/i.test(text)) {
    const sparsity = Number(text);
    if (sparsity < 1) return { kind: 'unstructured', sparsity };
  }
  throw usageError('the sparsity pattern is not valid', {
    expected: 'a fraction in [0, 1) such as 0.6, or zeros:group such as 2:4 with zeros < group',
    got: text,
  });
}

/** Zeros in a row of `cols` weights: trunc(cols·sparsity), or n per group of m. */
export function zerosPerRow(pattern: Pattern, cols: number): number {
  return pattern.kind === 'nm'
    ? (cols / pattern.m) * pattern.n
    : Math.trunc(cols * pattern.sparsity);
}

/** Why a layer with `cols` inputs cannot take the pattern; undefined when it can. */
export function patternMisfit(pattern: Pattern, cols: number): string | undefined {
  if (pattern.kind === 'unstructured' || cols % pattern.m === 0) return undefined;
  return `its ${cols} inputs do not divide into groups of ${pattern.m}`;
}
