import { batches, type Dataset, type Task } from '../../data/index.js';
import type { Feeds, Session } from '../../runtime/session.js';
import { batchSize } from '../evaluate.js';
import { Fidelity } from '../fidelity.js';
import type { Metrics } from '../metrics.js';
import { type MembershipInference, membershipInference } from './membership.js';
import { type Observation, Observer, type Rows, rowsOf } from './observe.js';
import { otherWidth } from './reference.js';
import { areProbabilities, type ScoreKind } from './rows.js';
import {
  type Accuracies,
  activationDistance,
  meanDivergence,
  tugOfWar,
  zeroRetrainForgetting,
} from './similarity.js';
import { wassersteinDistance } from './wasserstein.js';

/** Examples that a forgotten model is asked about. */
export interface ForgettingSets {
  forget: ExampleSet;
  /** Training examples that are to be kept. */
  retain?: ExampleSet;
  /** Examples that were never trained on. */
  test?: ExampleSet;
}

export interface ExampleSet {
  dataset: Dataset;
  indices: readonly number[];
  /** `none` for examples without labels, of which outputs are compared with those before. */
  task?: Task;
}

/** The models side by side, and one that knows nothing. */
export interface ForgettingSessions {
  before: Session;
  after: Session;
  /** Retrained without the forget set. */
  reference?: Session;
  /** Of random weights. */
  incompetent?: Session;
}

/**
 * How much of what was to be forgotten a model still knows, and of what was to be kept. Of sets without
 * labels the metrics say how close outputs are to those before.
 */
export interface ForgettingMeasures {
  forget: Metrics;
  retain?: Metrics;
  test?: Metrics;
  /** Of a request for whole classes: the test examples of those classes, and the others. */
  testForget?: Metrics;
  testRetain?: Metrics;
  /** Accuracy by class, of the test set; of the forget and retain sets when there is none. */
  classes?: Record<string, number>;
  /** Membership inference from the entropy of the prediction, as SSD's authors do it; classification. */
  membership?: MembershipInference | null;
  /** Membership inference from the loss. */
  membershipByLoss?: MembershipInference | null;
  /** Zero retrain forgetting score on the forget set. */
  zrf?: number;
  /** How close to the retrained model, on the forget set. */
  activationDistance?: number;
  klToReference?: number;
  /** Between the predictions of a regression and those of the retrained model, on the forget set. */
  wasserstein?: number;
  /** With the retrained model; from 0 to 1. */
  tugOfWar?: number;
  /** Training steps until the forget set is known again; null when it never was within the limit. */
  relearnSteps?: number | null;
}

export interface Forgetting {
  task: Task;
  samples: { forget: number; retain?: number; test?: number };
  /** Set when the request is for whole classes: all examples of these. */
  classes?: number[];
  before: ForgettingMeasures;
  after: ForgettingMeasures;
  reference?: ForgettingMeasures;
}

type Name = keyof ForgettingSessions;

/** Examples that tell whether a classifier puts out probabilities. */
const told = 64;

/**
 * Runs the models over the sets, side by side. Outputs are reduced batch by batch, never kept.
 * @throws {ResectError} as `evaluateModels`; exit 5 for a reference that has another output
 */
export async function measureForgetting(
  sessions: ForgettingSessions,
  sets: ForgettingSets,
  task: Task,
  progress: (done: number, total: number) => void,
): Promise<Forgetting> {
  const total = Object.values(sets).reduce((n, set) => n + (set?.indices.length ?? 0), 0);
  let done = 0;
  const step = (n: number) => {
    done += n;
    progress(done, total);
  };
  const models: Contestant[] = [];
  for (const name of ['before', 'after', 'reference', 'incompetent'] as const) {
    const session = sessions[name];
    if (!session) continue;
    const kind = task === 'classification' ? await scoreKind(session, sets.forget) : 'logits';
    models.push({ name, session, kind });
  }
  const forget = await observe(models, sets.forget, task, step);
  const retain = sets.retain && (await observe(models, sets.retain, task, step));
  const test = sets.test && (await observe(models, sets.test, task, step));
  const classes = wholeClasses(forget.models.before, retain?.models.before);

  const measure = (name: 'before' | 'after' | 'reference'): ForgettingMeasures => {
    const [f, r, t] = [forget, retain, test].map((set) => set?.models[name]);
    if (!f) throw new Error('the forget set is always there');
    const to = forget.toReference[name];
    return {
      forget: f.metrics,
      ...(r && { retain: r.metrics }),
      ...(t && { test: t.metrics }),
      ...(t && classes && task === 'classification' && splitByClass(t, classes)),
      ...(task === 'classification' && byClass([t, f, r])),
      ...(r &&
        t && {
          ...(task === 'classification' && {
            membership: membershipInference({
              members: r.entropies,
              nonMembers: t.entropies,
              forget: f.entropies,
            }),
          }),
          membershipByLoss: membershipInference({
            members: r.losses,
            nonMembers: t.losses,
            forget: f.losses,
          }),
        }),
      ...(forget.zrf[name] !== undefined && { zrf: forget.zrf[name] }),
      ...(name !== 'reference' && to),
      ...(name !== 'reference' &&
        sessions.reference &&
        task === 'regression' && {
          wasserstein: wassersteinDistance(
            f.predictions,
            forget.models.reference?.predictions ?? f.predictions,
          ),
        }),
    };
  };
  const result: Forgetting = {
    task,
    samples: {
      forget: sets.forget.indices.length,
      ...(sets.retain && { retain: sets.retain.indices.length }),
      ...(sets.test && { test: sets.test.indices.length }),
    },
    ...(classes && { classes }),
    before: measure('before'),
    after: measure('after'),
    ...(sessions.reference && { reference: measure('reference') }),
  };
  const retrained = result.reference && toAccuracies(result.reference);
  for (const side of [result.before, result.after]) {
    const own = toAccuracies(side);
    if (own && retrained) side.tugOfWar = tugOfWar(own, retrained);
  }
  return result;
}

/** What the models did on one set, and how far from the reference and from knowing nothing. */
interface SetObservation {
  models: Partial<Record<Name, Observation>> & { before: Observation };
  toReference: Partial<Record<Name, { activationDistance: number; klToReference: number }>>;
  zrf: Partial<Record<Name, number>>;
}

/** A model, and how its output is read. */
interface Contestant {
  name: Name;
  session: Session;
  kind: ScoreKind;
}

const outputNames = ({ outputs }: Session): string[] => outputs.map(({ name }) => name);

/** What a classifier puts out, by its rows for the first examples. */
async function scoreKind(session: Session, { dataset, indices }: ExampleSet): Promise<ScoreKind> {
  const size = batchSize(await dataset.example(indices[0]));
  for await (const batch of batches(dataset, indices.slice(0, told), size, session.inputs)) {
    const { scores, width } = rowsOf(await session.run(batch.feeds), outputNames(session), batch);
    if (!areProbabilities(scores, width)) return 'logits';
  }
  return 'probabilities';
}

async function observe(
  models: readonly Contestant[],
  { dataset, indices, task: own }: ExampleSet,
  task: Task,
  step: (n: number) => void,
): Promise<SetObservation> {
  const [{ session: before }] = models;
  const labelled = own !== 'none';
  const observers = new Map(
    models.map(({ name, session, kind }) => [
      name,
      new Observer(task, outputNames(session), kind, labelled),
    ]),
  );
  const scores = task === 'classification' || task === 'lm';
  const fidelities = new Map(
    models.map(({ name }) => [name, new Fidelity(outputNames(before), scores)]),
  );
  const means = new Map<string, number>();
  const addMean = (key: string, mean: number, n: number) =>
    means.set(key, (means.get(key) ?? 0) + (mean * n) / indices.length);

  const size = batchSize(await dataset.example(indices[0]));
  for await (const batch of batches(dataset, indices, size, before.inputs)) {
    const rows = new Map<Name, Rows>();
    let original: Feeds | undefined;
    for (const { name, session } of models) {
      const outputs = await session.run(batch.feeds);
      original ??= outputs;
      if (!labelled) fidelities.get(name)?.add(original, outputs);
      const own = observers.get(name)?.add(outputs, batch);
      if (!own) continue;
      rows.set(name, own);
      if (own.width !== rows.get('before')?.width)
        throw otherWidth(`${rows.get('before')?.width} classes`, `${own.width}`);
    }
    const [reference, incompetent] = [rows.get('reference'), rows.get('incompetent')];
    for (const [name, { scores, width }] of rows) {
      if (reference) {
        const distance = activationDistance(scores, reference.scores, width);
        addMean(`distance/${name}`, distance, batch.size);
        addMean(`kl/${name}`, meanDivergence(reference.scores, scores, width), batch.size);
      }
      if (incompetent) {
        const score = zeroRetrainForgetting(scores, incompetent.scores, width);
        addMean(`zrf/${name}`, score, batch.size);
      }
    }
    step(batch.size);
  }
  const observed = Object.fromEntries(
    [...observers].map(([name, observer]) => {
      const result = observer.result();
      return [name, labelled ? result : { ...result, metrics: fidelities.get(name)?.result() }];
    }),
  ) as SetObservation['models'];
  const toReference: SetObservation['toReference'] = {};
  const zrf: SetObservation['zrf'] = {};
  for (const { name } of models) {
    const [distance, kl] = [means.get(`distance/${name}`), means.get(`kl/${name}`)];
    if (distance !== undefined && kl !== undefined)
      toReference[name] = { activationDistance: distance, klToReference: kl };
    zrf[name] = means.get(`zrf/${name}`);
  }
  return { models: observed, toReference, zrf };
}

/** The classes of the forget set when the retain set has none of them, which is a request for classes. */
function wholeClasses(forget: Observation, retain?: Observation): number[] | undefined {
  const classes = [...forget.classes.keys()].sort((a, b) => a - b);
  if (classes.length === 0 || retain?.classes.size === 0) return undefined;
  const kept = retain ? classes.every((c) => !retain.classes.has(c)) : classes.length === 1;
  return kept ? classes : undefined;
}

/** Accuracy on the forgotten classes and on the others, each absent where the set has none of them. */
function splitByClass({ classes }: Observation, forgotten: readonly number[]) {
  const share = (wanted: (label: number) => boolean): Metrics | undefined => {
    let [right, samples] = [0, 0];
    for (const [label, seen] of classes) {
      if (!wanted(label)) continue;
      right += seen.right;
      samples += seen.samples;
    }
    return samples > 0 ? { accuracy: right / samples } : undefined;
  };
  const testForget = share((label) => forgotten.includes(label));
  const testRetain = share((label) => !forgotten.includes(label));
  return { ...(testForget && { testForget }), ...(testRetain && { testRetain }) };
}

/** Accuracy by class of the test set; of the others where it is not there, or has no labels. */
function byClass([test, ...others]: (Observation | undefined)[]) {
  const sets = test?.classes.size ? [test] : others.filter((set) => set?.classes.size);
  return sets.length > 0 && { classes: accuracies(sets as Observation[]) };
}

/** By class, over all observations: those of a class may be in several. */
function accuracies(observations: readonly Observation[]): Record<string, number> {
  const totals = new Map<number, { right: number; samples: number }>();
  for (const { classes } of observations) {
    for (const [label, { right, samples }] of classes) {
      const total = totals.get(label) ?? { right: 0, samples: 0 };
      totals.set(label, { right: total.right + right, samples: total.samples + samples });
    }
  }
  const entries = [...totals].map(([label, { right, samples }]) => [label, right / samples]);
  return Object.fromEntries(entries);
}

/** Test accuracy of a request for classes is that of the other classes. */
function toAccuracies({ forget, retain, test, testRetain }: ForgettingMeasures) {
  const kept = (testRetain ?? test)?.accuracy;
  if (forget.accuracy === undefined || retain?.accuracy === undefined || kept === undefined)
    return undefined;
  return { forget: forget.accuracy, retain: retain.accuracy, test: kept } satisfies Accuracies;
}
