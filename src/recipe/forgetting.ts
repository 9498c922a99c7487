import { openDataset, type Task } from '../data/index.js';
import { dataError, usageError } from '../errors.js';
import { forgetEverything } from '../evaluate/forgetting/incompetent.js';
import {
  type Forgetting,
  type ForgettingSessions,
  measureForgetting,
} from '../evaluate/forgetting/measure.js';
import { knowledgeOf, relearnSteps } from '../evaluate/forgetting/relearn.js';
import type { Port } from '../graph/interface.js';
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
}

export interface ForgettingData {
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
  const open = async (path: string, slice = {}): Promise<TaskData> => {
    const dataset = await openDataset(path, inputs, { tokenizer, task, ...slice });
    return {
      dataset,
      indices: Array.from({ length: dataset.length }, (_, i) => i),
      task: task ?? dataset.task,
    };
  };
  const forget = await open(request.forget, { where, indices });
  if (request.retain === request.forget && where === undefined && indices === undefined) {
    throw usageError('The forget set and the retain set are the same data.', {
      where: request.forget,
      expected: '--where or --indices, to say which of it is to be forgotten',
    });
  }
  const retain =
    request.retain &&
    (await open(
      request.retain,
      request.retain === request.forget ? { where, indices, complement: true } : {},
    ));
  const test = request.eval && (await open(request.eval));
  for (const set of [retain, test]) {
    if (set && set.task !== forget.task)
      throw dataError('The data is for another task than the forget set.', {
        where: set.dataset.path,
        expected: forget.task,
        got: set.task,
        hint: 'Say what the model does with --task.',
      });
  }
  return { forget, ...(retain && { retain }), ...(test && { test }) };
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
  const { task } = sets.forget;
  const before = original.path ?? '';
  const sessions: Partial<ForgettingSessions> = {};
  let result: Forgetting;
  try {
    sessions.before = await Session.open(before, { threads });
    sessions.after = await Session.open(made.path ?? '', { threads });
    if (reference) sessions.reference = await Session.open(reference, { threads });
    if (task === 'classification')
      sessions.incompetent = await openIncompetent(before, threads, seed);
    result = await measureForgetting(sessions as ForgettingSessions, sets, task, (done, total) =>
      progress('measure forgetting', done, total),
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
  result.after.relearnSteps = await relearnSteps(made, sets, known, options);
  if (reference && result.reference) {
    const retrained = await readModel(reference);
    result.reference.relearnSteps = await relearnSteps(retrained, sets, known, options);
  }
  return result;
}

async function openIncompetent(path: string, threads: number, seed: number): Promise<Session> {
  const model = await readModel(path);
  forgetEverything(model, seed);
  const { bytes, folder } = await openPart(model, model.proto);
  return Session.open(bytes, { threads, folder });
}
