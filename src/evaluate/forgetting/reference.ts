import type { InputSpec } from '../../data/index.js';
import { modelError } from '../../errors.js';

/** A model that cannot be compared, row by row, because its rows are longer or shorter. */
export const otherWidth = (expected: string, got: string) =>
  modelError('The reference model puts out something else than the model.', {
    expected,
    got,
    hint: 'Give a model for the same task, with the same classes, as --reference.',
  });

/**
 * Refuses a reference that cannot be fed what the model is fed, or puts out rows of another length, as
 * far as the two models say.
 * @throws {ResectError} exit 5
 */
export function checkReference(model: Interface, reference: Interface): void {
  const shape = ({ name, dtype, dims }: InputSpec) =>
    `${name} ${dtype} [${dims.map((dim) => (typeof dim === 'number' ? dim : '?')).join(', ')}]`;
  for (const own of reference.inputs) {
    const given = model.inputs.find(({ name }) => name === own.name);
    if (!given || !fits(given, own))
      throw modelError('The reference model takes other inputs than the model.', {
        expected: model.inputs.map(shape).join('; '),
        got: shape(own),
        hint: 'Give a model that is fed the same data as --reference.',
      });
  }
  const [a, b] = [model, reference].map(({ outputs }) =>
    outputs.find(({ dtype }) => /^float/.test(dtype)),
  );
  if (a && !b) throw otherWidth(shape(a), 'no output in floating point');
  if (a && b && !fits({ ...a, dtype: b.dtype }, b)) throw otherWidth(shape(a), shape(b));
}

/** What a model takes and puts out; a session is one. */
interface Interface {
  inputs: readonly InputSpec[];
  outputs: readonly InputSpec[];
}

/** Whether what fits `a` may fit `b`: the same type and rank, where known, and no two lengths that differ. */
function fits(a: InputSpec, b: InputSpec): boolean {
  if (a.dtype !== b.dtype) return false;
  if (a.dims.length === 0 || b.dims.length === 0) return true;
  const may = (one: number | string, other: number | string) =>
    typeof one === 'string' || typeof other === 'string' || one === other;
  return a.dims.length === b.dims.length && a.dims.every((dim, i) => may(dim, b.dims[i]));
}
