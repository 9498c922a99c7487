import { batches, type Dataset, type Task } from '../../data/index.js';
import type { Session } from '../../runtime/session.js';
import { batchSize } from '../evaluate.js';
import type { Metrics } from '../metrics.js';
import { type MembershipInference, membershipInference } from './membership.js';
import { type Observation, Observer, rowsOf } from './observe.js';
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

/** How much of what was to be forgotten a model still knows, and of what was to be kept. */
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

/**
 * Runs the models over the sets, side by side. Outputs are reduced batch by batch, never kept.
 * @throws {ResectError} as `evaluateModels`
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
  const forget = await observe(sessions, sets.forget, task, step);
  const retain = sets.retain && (await observe(sessions, sets.retain, task, step));
  const test = sets.test && (await observe(sessions, sets.test, task, step));
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
      ...(task === 'classification' && { classes: accuracies(t ? [t] : r ? [f, r] : [f]) }),
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

async function observe(
  sessions: ForgettingSessions,
  { dataset, indices }: ExampleSet,
  task: Task,
  step: (n: number) => void,
): Promise<SetObservation> {
  const names = (Object.keys(sessions) as Name[]).filter((name) => sessions[name]);
  const outputs = sessions.before.outputs.map(({ name }) => name);
  const observers = new Map(names.map((name) => [name, new Observer(task, outputs)]));
  const means = new Map<string, number>();
  const addMean = (key: string, mean: number, n: number) =>
    means.set(key, (means.get(key) ?? 0) + (mean * n) / indices.length);

  const size = batchSize(await dataset.example(indices[0]));
  for await (const batch of batches(dataset, indices, size, sessions.before.inputs)) {
    const rows = new Map<Name, Float32Array>();
    let width = 0;
    for (const name of names) {
      const results = await (sessions[name] as Session).run(batch.feeds);
      observers.get(name)?.add(results, batch);
      if (task !== 'classification') continue;
      const own = rowsOf(results, outputs, batch);
      rows.set(name, own.scores);
      width = own.width;
    }
    for (const [name, own] of rows) {
      const [reference, incompetent] = [rows.get('reference'), rows.get('incompetent')];
      if (reference) {
        addMean(`distance/${name}`, activationDistance(own, reference, width), batch.size);
        addMean(`kl/${name}`, meanDivergence(reference, own, width), batch.size);
      }
      if (incompetent)
        addMean(`zrf/${name}`, zeroRetrainForgetting(own, incompetent, width), batch.size);
    }
    step(batch.size);
  }
  const models = Object.fromEntries(
    [...observers].map(([name, observer]) => [name, observer.result()]),
  ) as SetObservation['models'];
  const toReference: SetObservation['toReference'] = {};
  const zrf: SetObservation['zrf'] = {};
  for (const name of names) {
    const [distance, kl] = [means.get(`distance/${name}`), means.get(`kl/${name}`)];
    if (distance !== undefined && kl !== undefined)
      toReference[name] = { activationDistance: distance, klToReference: kl };
    zrf[name] = means.get(`zrf/${name}`);
  }
  return { models, toReference, zrf };
}

/** The classes of the forget set when the retain set has none of them, which is a request for classes. */
function wholeClasses(forget: Observation, retain?: Observation): number[] | undefined {
  const classes = [...forget.classes.keys()].sort((a, b) => a - b);
  if (classes.length === 0) return undefined;
  const kept = retain ? classes.every((c) => !retain.classes.has(c)) : classes.length === 1;
  return kept ? classes : undefined;
}

function splitByClass({ classes }: Observation, forgotten: readonly number[]) {
  const share = (wanted: (label: number) => boolean): Metrics => {
    let [right, samples] = [0, 0];
    for (const [label, seen] of classes) {
      if (!wanted(label)) continue;
      right += seen.right;
      samples += seen.samples;
    }
    return { accuracy: right / samples };
  };
  return {
    testForget: share((label) => forgotten.includes(label)),
    testRetain: share((label) => !forgotten.includes(label)),
  };
}

function accuracies(observations: readonly Observation[]): Record<string, number> {
  const entries = observations.flatMap(({ classes }) =>
    [...classes].map(([label, { samples, right }]) => [label, right / samples] as const),
  );
  return Object.fromEntries(entries.sort(([a], [b]) => a - b));
}

/** Test accuracy of a request for classes is that of the other classes. */
function toAccuracies({ forget, retain, test, testRetain }: ForgettingMeasures) {
  const kept = (testRetain ?? test)?.accuracy;
  if (forget.accuracy === undefined || retain?.accuracy === undefined || kept === undefined)
    return undefined;
  return { forget: forget.accuracy, retain: retain.accuracy, test: kept } satisfies Accuracies;
}
