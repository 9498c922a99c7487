import { dataError } from '../errors.js';
import type { Column } from './columns.js';
import { product, showDims } from './dtypes.js';
import type { Dataset, Example, Task } from './types.js';

export interface Labels {
  task: Task;
  /** Absent when labels are tensors. */
  label?: Dataset['label'];
  of(i: number): Promise<Example['label']>;
}

/** Class indices are stored as int64 at most, but no model has more classes than this. */
const MAX_CLASS = 2 ** 31 - 1;

/**
 * Labels from a column. Single numbers are read at once; without a stated task they are classes when all are
 * non-negative integers, and regression targets otherwise.
 * Throws a data error when there is not one per example, one is NaN, or a class is not a class index.
 */
export async function readLabels(column: Column, length: number, task?: Task): Promise<Labels> {
  if (column.length !== length)
    throw dataError('there is not one label per example', {
      where: column.where,
      expected: `${length} labels`,
      got: `${column.length}`,
    });
  const dims = column.itemDims ?? (length > 0 ? (await column.item(0)).dims : []);
  if (product(dims) !== 1) return tensorLabels(column, dims, task);
  const values = await column.numbers();
  let classes = true;
  for (let i = 0; i < length; i++) {
    const value = values[i];
    if (Number.isNaN(value)) throw badLabel(column, i, 'a number', value);
    if (Number.isInteger(value) && value >= 0 && value <= MAX_CLASS) continue;
    if (task === 'classification')
      throw badLabel(column, i, `a class index from 0 to ${MAX_CLASS}`, value);
    classes = false;
  }
  const label = (i: number) => values[i];
  return {
    task: task ?? (classes ? 'classification' : 'regression'),
    label,
    of: async (i) => label(i),
  };
}

function tensorLabels(column: Column, dims: number[], task: Task = 'regression'): Labels {
  if (task === 'classification')
    throw dataError('classification needs one class index per example', {
      where: column.where,
      got: `labels of shape ${showDims(dims)}`,
    });
  return { task, of: (i) => column.item(i) };
}

const badLabel = (column: Column, i: number, expected: string, got: number) =>
  dataError('the label is not usable', {
    where: `${column.where}, example ${i}`,
    expected,
    got: `${got}`,
  });
