import { string } from '../../graph/build.js';
import { stringAttribute } from '../../graph/nodes.js';
import type { NodeProto } from '../../onnx/index.js';
import { expand, reshapeFrom, sameDims } from '../emit.js';
import { refuse, single } from '../rule.js';
import type { Tape } from '../tape.js';

/**
 * y = Σ of products, by labels: the gradient of an operand is the product of g with the other operands,
 * summed over what the operand does not have.
 */
export const Einsum = single((t, g, { node, need }) => {
  const { terms, result } = labels(t, node);
  return node.input.map((name, k) =>
    need[k] ? operandGradient(t, g, node, { terms, result }, name, k) : undefined,
  );
});

interface Labels {
  /** One letter for each axis of each input. */
  terms: string[];
  /** One letter for each axis of the output. */
  result: string;
}

function operandGradient(
  t: Tape,
  g: string,
  node: NodeProto,
  { terms, result }: Labels,
  name: string,
  k: number,
): string {
  const term = terms[k];
  if (new Set(term).size < term.length) refuse(node, `a diagonal ("${term}")`);
  const to = t.dims(name);
  const others = terms.flatMap((_, i) => (i === k ? [] : [i]));
  /** Size of a label among what the gradient is made of; none where it is summed over in `name` alone. */
  const size = (label: string): number | undefined => {
    const sizes = [
      ...sizesOf(result, t.dims(node.output[0]), label),
      ...others.flatMap((i) => sizesOf(terms[i], t.dims(node.input[i]), label)),
    ];
    return sizes.length ? Math.max(...sizes) : undefined;
  };
  // A stretched axis is left out, and so summed over.
  const kept = [...term].filter((label, i) => {
    const n = size(label);
    return n !== undefined && (to[i] !== 1 || n === 1);
  });
  const equation = `${[result, ...others.map((i) => terms[i])].join(',')}->${kept.join('')}`;
  const dx = t.emit(
    'Einsum',
    [g, ...others.map((i) => node.input[i])],
    [string('equation', equation)],
  );
  const dims = kept.map((label) => size(label) ?? 1);
  const padded = [...term].map((label) => (kept.includes(label) ? (size(label) ?? 1) : 1));
  const shaped = reshapeFrom(t, dx, dims, padded);
  return sameDims(padded, to) ? shaped : expand(t, shaped, to);
}

const sizesOf = (term: string, dims: readonly number[], label: string): number[] =>
  [...term].flatMap((l, i) => (l === label ? [dims[i]] : []));

/** The equation with letters in place of `...`, and with its result. */
function labels(t: Tape, node: NodeProto): Labels {
  const equation = stringAttribute(node, 'equation', '').replaceAll(' ', '');
  const [left, right] = equation.split('->');
  const written = left.split(',');
  const alphabet = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';
  const free = [...alphabet].filter((letter) => !equation.includes(letter));
  // ONNX Runtime takes only operands whose `...` stand for equally many axes.
  const k = written.findIndex((term) => term.includes('...'));
  const rank = k < 0 ? 0 : t.dims(node.input[k]).length - written[k].length + 3;
  const batch = free.slice(0, rank).join('');
  const spell = (term: string) => term.replace('...', batch);
  const terms = written.map(spell);
  if (right !== undefined) return { terms, result: spell(right) };
  const all = [...left].filter((c) => /[a-zA-Z]/.test(c));
  const once = all.filter((label) => all.indexOf(label) === all.lastIndexOf(label)).sort();
  return { terms, result: batch + once.join('') };
}
