import { ResectError } from '../errors.js';
import { Session } from './session.js';
import type { SessionAnswer, SessionRequest } from './session-thread.js';

const sessions = new Map<number, Session>();

/** Worker entry of `SessionThread`. */
export default async function answer(request: SessionRequest): Promise<SessionAnswer> {
  try {
    return await perform(request);
  } catch (error) {
    if (!(error instanceof ResectError)) throw error;
    const { message, exitCode, detail } = error;
    // A cause may be anything, and need not be what a thread can be sent.
    return { error: { message, exitCode, detail: { ...detail, cause: undefined } } };
  }
}

async function perform(request: SessionRequest): Promise<SessionAnswer> {
  const { id } = request;
  if (request.do === 'open') {
    const session = await Session.open(request.model, request.options);
    sessions.set(id, session);
    return { inputs: session.inputs, outputs: session.outputs };
  }
  const session = sessions.get(id);
  if (!session) throw new Error(`no session ${id}`);
  if (request.do === 'run') return { results: await session.run(request.feeds, request.outputs) };
  sessions.delete(id);
  await session.release();
  return undefined;
}
