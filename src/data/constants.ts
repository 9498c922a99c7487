import { dataError } from '../errors.js';
import { numeric } from './auxiliary.js';
import type { Card } from './card.js';
import { convert } from './dtypes.js';
import { itemDims, shapeMismatch } from './preprocess.js';
import { toTensor } from './records.js';
import type { Dataset, InputSpec } from './types.js';

/** The card's `value`s: a single number fills its input, nested lists have to fit its shape. */
export function constantsOf(specs: readonly InputSpec[], card: Card): Dataset['constants'] {
  const constants: Record<string, NonNullable<Dataset['constants']>[string]> = {};
  for (const [name, { value }] of Object.entries(card.inputs ?? {})) {
    const spec = specs.find((candidate) => candidate.name === name);
    if (!spec)
      throw dataError('the model has no such input', {
        where: `data card, inputs.${name}`,
        expected: `one of ${specs.map((candidate) => candidate.name).join(', ')}`,
      });
    if (value === undefined) continue;
    const where = `data card, inputs.${name}.value`;
    const tensor = toTensor(value, where);
    const dtype = numeric(spec);
    const data = convert(tensor, dtype, where);
    if (tensor.dims.length === 0) constants[name] = Number(tensor.data[0]);
    else {
      const dims = itemDims(tensor.dims, spec);
      if (!dims) throw shapeMismatch(tensor.dims, spec, where);
      constants[name] = { dtype, dims, data };
    }
  }
  return constants;
}
