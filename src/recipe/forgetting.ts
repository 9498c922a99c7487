import path from 'node:path';
import { openDataset, type Task } from '../data/index.js';
import { dataError, inFile, usageError } from '../errors.js';
import { forgetEverything } from '../evaluate/forgetting/incompetent.js';
import {
  type Forgetting,
  type ForgettingSessions,
  measureForgetting,
} from '../evaluate/forgetting/measure.js';
import { checkReference } from '../evaluate/forgetting/reference.js';
import { knowledgeOf, relearnSteps } from '../evaluate/forgetting/relearn.js';
import { checkMeasurable, type Gates } from '../evaluate/gates.js';
import { modelInputs, modelOutputs, type Port } from '../graph/interface.js';
import type { Progress, TaskData } from '../methods/method.js';
import { type Model, readModel } from '../onnx/index.js';
import { openPart } from '../runtime/part.js';
import { Session } from '../runtime/session.js';

/** The data of a request to forget, as files. */
export interface ForgettingRequest {
  forget: string;
  retain?: string;
  eval?: string;
  where?: string;
  indices?: string;
  tokenizer?: string;
  task?: Task;
  relearn?: boolean;
}

export interface ForgettingData {
  /** What the model does, as far as labels or `--task` tell. */
  task: Task;
  /** The task of a set without labels is `none`. */
  forget: TaskData;
  retain?: TaskData;
  test?: TaskData;
}

/**
 * Opens the sets. `where` and `indices` choose what is to be forgotten of `forget`; a retain set from the
 * same file is the rest of it.
 * @throws {ResectError} exit 6 for data that does not fit, exit 2 when nothing would be retained
 */
export async function openForgettingData(
  request: ForgettingRequest,
  inputs: Port[],
): Promise<ForgettingData> {
  const { tokenizer, task, where, indices } = request;
  const open = async (file: string, slice = {}): Promise<TaskData> => {
    const options = { tokenizer, task, ...slice };
    const dataset = await inFile(file, () => openDataset(file, inputs, options));
    const { label } = await dataset.example(0);
    return {
      dataset,
      indices: Array.from({ length: dataset.length }, (_, i) => i),
      task: label === undefined ? 'none' : (task ?? dataset.task),
    };
  };
  const same = request.retain !== undefined && sameData(request.retain, request.forget);
  if (same && where === undefined && indices === undefined) {
    throw usageError('The forget set and the retain set are the same data.', {
      where: request.forget,
      expected: '--where or --indices, to say which of it is to be forgotten',
    });
  }
  const forget = await open(request.forget, { where, indices });
  const retain =
    request.retain &&
    (await open(request.retain, same ? { where, indices, complement: true } : {}));
  if (retain && !same) await checkRetain(forget, retain);
  const test = request.eval && (await open(request.eval));
  const sets = [forget, ...(retain ? [retain] : []), ...(test ? [test] : [])];
  const own = task ?? sets.find((set) => set.task !== 'none')?.task ?? 'none';
  const other = sets.find((set) => set.task !== 'none' && set.task !== own);
  if (other)
    throw dataError('The data is for another task than the forget set.', {
      where: other.dataset.path,
      expected: own,
      got: other.task,
      hint: 'Say what the model does with --task.',
    });
  const unlabelled = [forget, ...(retain ? [retain] : [])].find((set) => set.task === 'none');
  if (request.relearn && unlabelled) {
    throw usageError('--relearn trains on the forget set and the retain set, and needs labels.', {
      where: unlabelled.dataset.path,
      got: 'no labels',
      hint: 'Leave it out, or say what the model does with --task.',
    });
  }
  return { task: own, forget, ...(retain && { retain }), ...(test && { test }) };
}

/** Whether two arguments name the same data; one of IDX files has a comma in it. */
function sameData(a: string, b: string): boolean {
  const files = (argument: string) => argument.split(',').map((file) => path.resolve(file));
  return files(a).join() === files(b).join();
}

/**
 * Refuses a retain set that is read from the file of the forget set in another way, as it would have the
 * examples that are to be forgotten; and one that feeds other inputs.
 */
async function checkRetain(forget: TaskData, retain: TaskData): Promise<void> {
  const [a, b] = [forget.dataset, retain.dataset];
  if (path.resolve(a.files[0]) === path.resolve(b.files[0]))
    throw usageError('The retain set holds the examples that are to be forgotten.', {
      where: b.path,
      got: `the file of the forget set: ${a.files[0]}`,
      hint: 'Give the same DATA to --retain as to --forget: what is not to be forgotten is kept.',
    });
  const [given, own] = [await a.example(0), await b.example(0)].map(({ inputs }) =>
    Object.keys(inputs).sort().join(', '),
  );
  if (given !== own)
    throw dataError('The data feeds other inputs than the forget set.', {
      where: b.path,
      expected: given,
      got: own,
    });
}

/**
 * Refuses a reference that cannot be compared with the model, before any work is done.
 * @throws {ResectError} exit 5 or 7
 */
export async function checkReferenceFile(model: Model, file: string): Promise<void> {
  const { proto } = await readModel(file);
  const [own, other] = [model.proto, proto].map((p) => ({
    inputs: modelInputs(p),
    outputs: modelOutputs(p),
  }));
  await inFile(file, async () => checkReference(own, other));
}

/** What is measured of each task. The top five count only where there are more than ten classes. */
const measured: Record<Task, readonly string[]> = {
  classification: ['accuracy', 'top5', 'loss'],
  lm: ['perplexity', 'loss'],
  regression: ['rmse', 'mae', 'r2'],
  // Compared with what the model put out before.
  none: ['agreement', 'kl', 'cosine', 'relativeError'],
};

/**
 * Refuses gates on what will not be measured, before any work is done.
 * @throws {ResectError} exit 2
 */
export function checkForgettingGates(
  gates: Gates,
  { task, forget, retain, test }: ForgettingData,
): void {
  const names = (set: TaskData | undefined) => {
    if (!set) return [];
    // Without classes there is none to agree on.
    const classes = set.task !== 'none' || task === 'classification' || task === 'lm';
    return measured[set.task].filter((name) => classes || !['agreement', 'kl'].includes(name));
  };
  checkMeasurable(gates, names(test ?? retain), names(forget));
}

export interface ForgettingOptions {
  /** A model retrained without the forget set. */
  reference?: string;
  relearn?: boolean;
  threads: number;
  seed: number;
  progress: Progress;
}

/**
 * Measures what the model at `path`, made from `original`, has forgotten.
 * @throws {ResectError} exit 5 when a model does not run
 */
export async function measureForgettingOf(
  original: Model,
  made: Model,
  sets: ForgettingData,
  { reference, relearn, threads, seed, progress }: ForgettingOptions,
): Promise<Forgetting> {
  const { task, ...examples } = sets;
  const before = original.path ?? '';
  const sessions: Partial<ForgettingSessions> = {};
  let result: Forgetting;
  try {
    sessions.before = await Session.open(before, { threads });
    sessions.after = await Session.open(made.path ?? '', { threads });
    if (reference) sessions.reference = await Session.open(reference, { threads });
    if (task === 'classification')
      sessions.incompetent = await openIncompetent(before, threads, seed);
    result = await measureForgetting(
      sessions as ForgettingSessions,
      examples,
      task,
      (done, total) => progress('measure forgetting', done, total),
    );
  } finally {
    for (const session of Object.values(sessions)) await session.release();
  }
  if (!relearn) return result;
  const options = {
    task,
    threads,
    seed,
    progress: (done: number, total: number) => progress('relearn', done, total),
  };
  const known = await knowledgeOf(await readModel(before), sets.forget, options);
  result.before.relearnSteps = 0;
  result.after.relearnSteps = await relearnSteps(made, examples, known, options);
  if (reference && result.reference) {
    const retrained = await readModel(reference);
    result.reference.relearnSteps = await relearnSteps(retrained, examples, known, options);
  }
  return result;
}

async function openIncompetent(path: string, threads: number, seed: number): Promise<Session> {
  const model = await readModel(path);
  forgetEverything(model, seed);
  const { bytes, folder } = await openPart(model, model.proto);
  return Session.open(bytes, { threads, folder });
}
