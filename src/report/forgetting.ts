import type { Forgetting, ForgettingMeasures } from '../evaluate/forgetting/measure.js';
import type { MembershipInference } from '../evaluate/forgetting/membership.js';
import { relearnLimit } from '../evaluate/forgetting/relearn.js';
import type { Metrics } from '../evaluate/metrics.js';
import { number, percent } from './format.js';
import { metric } from './metric.js';
import type { Table } from './table.js';

type Read = (measures: ForgettingMeasures) => string | undefined;

/** Classes shown one by one. */
const shownClasses = 20;

const value =
  (name: string, set: (m: ForgettingMeasures) => Metrics | undefined): Read =>
  (m) => {
    const found = set(m)?.[name];
    return found === undefined ? undefined : metric(name, found);
  };

const share =
  (read: (m: ForgettingMeasures) => number | undefined): Read =>
  (m) => {
    const found = read(m);
    return found === undefined ? undefined : percent(found);
  };

const plain =
  (read: (m: ForgettingMeasures) => number | undefined): Read =>
  (m) => {
    const found = read(m);
    return found === undefined ? undefined : number(found);
  };

/** How many examples of the forget set an attack takes for training data, and how good the attack is. */
const attack = (
  by: string,
  read: (m: ForgettingMeasures) => MembershipInference | null | undefined,
): [string, Read][] => [
  [`forget set taken for training data, by ${by}`, share((m) => read(m)?.forgetRate)],
  [`area under curve of the attack by ${by}`, plain((m) => read(m)?.attackAuc)],
];

/** What was forgotten and kept, of each model. */
export function forgettingTable({ before, after, reference, classes }: Forgetting): Table {
  const models = reference ? [before, after, reference] : [before, after];
  const measured = [before.forget, before.retain, before.test];
  const names = [...new Set(measured.flatMap((metrics) => Object.keys(metrics ?? {})))];
  const sets: [string, (m: ForgettingMeasures) => Metrics | undefined][] = [
    ['forget set', (m) => m.forget],
    ['retain set', (m) => m.retain],
    ['test set', (m) => m.test],
    [`test, class ${classes?.join(', ')}`, (m) => m.testForget],
    ['test, other classes', (m) => m.testRetain],
  ];
  const rows: [string, Read][] = [
    ...sets.flatMap(([set, read]) =>
      names.map((name): [string, Read] => [`${set}: ${name}`, value(name, read)]),
    ),
    ...attack('entropy', (m) => m.membership),
    ...attack('loss', (m) => m.membershipByLoss),
    ['zero retrain forgetting score', plain((m) => m.zrf)],
    ['activation distance to retrained', plain((m) => m.activationDistance)],
    ['KL divergence to retrained', plain((m) => m.klToReference)],
    ['Wasserstein distance to retrained', plain((m) => m.wasserstein)],
    ['tug of war with retrained', plain((m) => m.tugOfWar)],
    [
      'steps to relearn',
      ({ relearnSteps: steps }) =>
        steps === undefined
          ? undefined
          : steps === null
            ? `not within ${relearnLimit}`
            : String(steps),
    ],
  ];
  return {
    header: ['', 'before', 'after', ...(reference ? ['retrained'] : [])],
    rows: rows.flatMap(([label, read]) => {
      const cells = models.map(read);
      return cells.some((cell) => cell !== undefined)
        ? [[label, ...cells.map((cell) => cell ?? '')]]
        : [];
    }),
    numeric: [1, 2, 3],
  };
}

/**
 * Accuracy of each class; undefined for other tasks. Of more classes than people read, those that were to
 * be forgotten and those that changed most.
 */
export function classTable({
  before,
  after,
  reference,
  classes = [],
}: Forgetting): Table | undefined {
  const all = Object.keys(before.classes ?? {});
  if (all.length === 0) return undefined;
  const models = reference ? [before, after, reference] : [before, after];
  const rank = (label: string) =>
    classes.includes(Number(label))
      ? 2 // more than any change
      : Math.abs((after.classes?.[label] ?? 0) - (before.classes?.[label] ?? 0));
  const shown = new Set([...all].sort((a, b) => rank(b) - rank(a)).slice(0, shownClasses));
  const labels = all.filter((label) => shown.has(label));
  const part = all.length > shown.size ? ` (${shown.size} of ${all.length})` : '';
  const on = before.test ? 'test accuracy' : 'accuracy';
  return {
    header: [`${on} of class${part}`, 'before', 'after', ...(reference ? ['retrained'] : [])],
    rows: labels.map((label) => [
      label,
      ...models.map(({ classes }) => (classes ? percent(classes[label]) : '')),
    ]),
    numeric: [1, 2, 3],
  };
}

/** What the numbers are of. */
export function forgettingMeasuredOn({ samples, task }: Forgetting): string {
  const sets = [
    `${samples.forget} examples to forget`,
    ...(samples.retain ? [`${samples.retain} to keep`] : []),
    ...(samples.test ? [`${samples.test} for testing`] : []),
  ];
  return `Measured on ${sets.join(', ')} (${task}).`;
}
