import { concat, type Dataset } from '../../data/index.js';
import { dataError, usageError } from '../../errors.js';
import type { Calibration, TaskData } from '../method.js';

/** In which order the full training set is read, which decides what its batches are. */
export const orders = ['class-sorted', 'retain-then-forget', 'shuffled'] as const;
export type Order = (typeof orders)[number];

/** The forget set, which the command line always gives. */
export function needForget(forget: TaskData | undefined): TaskData {
  if (forget) return forget;
  throw new Error('a method that needs a forget set has got one');
}

/**
 * The retain set.
 * @throws {ResectError} exit 2 when there is none
 */
export function needRetain(retain: TaskData | undefined): TaskData {
  if (retain) return retain;
  throw usageError('Training needs the examples that are to be kept.', {
    expected: '--retain DATA',
  });
}

/** The classes of a set, where its examples have class numbers as labels. */
export function classesOf({ dataset, indices }: Calibration): Set<number> | undefined {
  const { label } = dataset;
  return label && new Set(indices.map((i) => label(i)));
}

/** True when the request is for whole classes: the retain set has no example of them. */
export function isClassRequest(forget: TaskData, retain: Calibration | undefined): boolean {
  if (forget.task !== 'classification') return false;
  const classes = classesOf(forget);
  if (!classes) return false;
  const kept = retain && classesOf(retain);
  return kept ? [...classes].every((c) => !kept.has(c)) : classes.size === 1;
}

/**
 * The full training set: the retain set, then the forget set.
 * @param order `class-sorted`: the retain set class by class, each in the order given
 * @param shuffle for `shuffled`: an order of all
 */
export function fullSet(
  retain: Calibration,
  forget: Calibration,
  order: Order,
  shuffle: <T>(items: readonly T[]) => T[],
): Calibration {
  const kept = order === 'class-sorted' ? byClass(retain) : retain.indices;
  const dataset: Dataset = concat(retain.dataset, forget.dataset);
  const indices = [...kept, ...forget.indices.map((i) => i + retain.dataset.length)];
  return { dataset, indices: order === 'shuffled' ? shuffle(indices) : indices };
}

function byClass({ dataset, indices }: Calibration): number[] {
  const { label } = dataset;
  if (!label)
    throw dataError('The retain set cannot be sorted by class: its labels are not class numbers.', {
      where: dataset.path,
      hint: 'Choose --order retain-then-forget.',
    });
  return [...indices].sort((a, b) => label(a) - label(b));
}
