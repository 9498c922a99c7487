/** Exit codes of the command line; `docs/exit-codes.md` explains each. */
export const ExitCode = {
  ok: 0,
  bug: 1,
  usage: 2,
  verification: 3,
  gate: 4,
  unsupportedModel: 5,
  badData: 6,
  io: 7,
  interrupted: 130,
} as const;

export interface ErrorDetail {
  /** File, node, tensor or flag the problem is in, most general first. */
  where?: string;
  expected?: string;
  got?: string;
  /** What the user can do about it, as an imperative sentence. */
  hint?: string;
  cause?: unknown;
}

/** An error the user can act on. Anything else that is thrown is a bug. */
export class ResectError extends Error {
  readonly exitCode: number;
  readonly detail: ErrorDetail;

  constructor(message: string, exitCode: number, detail: ErrorDetail = {}) {
    super(message, { cause: detail.cause });
    this.name = 'ResectError';
    this.exitCode = exitCode;
    this.detail = detail;
  }
}

/** A flag or parameter is wrong. */
export const usageError = (message: string, detail?: ErrorDetail) =>
  new ResectError(message, ExitCode.usage, detail);

/** The bytes are not a model we can read, or the model has something the operation cannot treat. */
export const modelError = (message: string, detail?: ErrorDetail) =>
  new ResectError(message, ExitCode.unsupportedModel, detail);

/** The data cannot be read or does not fit the model. */
export const dataError = (message: string, detail?: ErrorDetail) =>
  new ResectError(message, ExitCode.badData, detail);

/** A file cannot be read or written, or its path is unsafe. */
export const ioError = (message: string, detail?: ErrorDetail) =>
  new ResectError(message, ExitCode.io, detail);

/** Does `work`; errors the user can act on say which file they are about. */
export async function inFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ResectError) || error.detail.where?.includes(path)) throw error;
    const { message, exitCode, detail } = error;
    const where = detail.where ? `${path}: ${detail.where}` : path;
    throw new ResectError(message, exitCode, { ...detail, where });
  }
}
