import type * as Ort from 'onnxruntime-node';
import type { InputSpec, TensorData } from '../data/index.js';
import { dataError, modelError } from '../errors.js';

export interface SessionOptions {
  /** Threads inside one operator; default: what the process may use. */
  threads?: number;
  /** Folder that external data locations of a model given as bytes are relative to. */
  folder?: string;
  /** How far the runtime may rewrite the graph; default: as far as it can. */
  optimization?: 'disabled' | 'basic' | 'all';
  /** Where the runtime writes the graph as it rewrote it. */
  saveOptimized?: string;
  /** Plans memory for repeated runs of one shape; costs up to twice the memory. Default on. */
  memoryPattern?: boolean;
}

export type Feeds = Record<string, TensorData>;

let runtime: Promise<typeof Ort> | undefined;

/** ONNX Runtime, loaded on first use so that commands without it start fast and work where it is absent. */
export function loadRuntime(): Promise<typeof Ort> {
  // The runtime would report its use to its maker, and leave files of that in the user's folders.
  process.env.ORT_DISABLE_TELEMETRY ??= '1';
  runtime ??= import('onnxruntime-node').then(
    (ort) => {
      ort.env.logLevel = 'fatal';
      return ort;
    },
    (cause) => {
      throw modelError('ONNX Runtime could not be loaded on this machine.', {
        got: String(cause?.message ?? cause).split('\n')[0],
        hint: 'Reinstall with npm ci on a platform that onnxruntime-node supports.',
        cause,
      });
    },
  );
  return runtime;
}

/** A loaded model. Release it when done; `withSession` does. */
export class Session {
  readonly inputs: InputSpec[];
  readonly outputs: InputSpec[];
  readonly #ort: typeof Ort;
  readonly #session: Ort.InferenceSession;

  private constructor(ort: typeof Ort, session: Ort.InferenceSession) {
    this.#ort = ort;
    this.#session = session;
    this.inputs = session.inputMetadata.flatMap(toSpec);
    this.outputs = session.outputMetadata.flatMap(toSpec);
  }

  /**
   * @param model a path, or the bytes of a model.
   * @throws {ResectError} exit 5 with the runtime's own reason when it refuses the model.
   */
  static async open(model: string | Uint8Array, options: SessionOptions = {}): Promise<Session> {
    const ort = await loadRuntime();
    const config: Ort.InferenceSession.SessionOptions = {
      intraOpNumThreads: options.threads ?? 0,
      interOpNumThreads: 1,
      graphOptimizationLevel: options.optimization ?? 'all',
      ...(options.saveOptimized && { optimizedModelFilePath: options.saveOptimized }),
      enableMemPattern: options.memoryPattern ?? true,
      logSeverityLevel: 4,
      extra: {
        session: {
          // Two sessions whose threads spin at once slow each other down.
          intra_op: { allow_spinning: '0' },
          ...(options.folder && { model_external_initializers_file_folder_path: options.folder }),
        },
      },
    };
    try {
      const session =
        typeof model === 'string'
          ? await ort.InferenceSession.create(model, config)
          : await ort.InferenceSession.create(model, config);
      return new Session(ort, session);
    } catch (cause) {
      throw modelError('ONNX Runtime refuses the model.', {
        where: typeof model === 'string' ? model : undefined,
        got: reason(cause),
        cause,
      });
    }
  }

  /**
   * Runs the model once.
   * @param outputs names to fetch; default all tensors.
   * @throws {ResectError} exit 6 when the feeds do not fit, 5 when the model fails on them.
   */
  async run(
    feeds: Feeds,
    outputs: readonly string[] = this.outputs.map(({ name }) => name),
  ): Promise<Feeds> {
    const tensors: Record<string, Ort.Tensor> = {};
    let results: Ort.InferenceSession.OnnxValueMapType;
    try {
      for (const { name } of this.inputs) {
        const value = feeds[name];
        if (value) tensors[name] = toOrt(this.#ort, value);
      }
      // Named, because the runtime fails on outputs that are no tensors (a classifier's ZipMap).
      results = await this.#session.run(tensors, [...outputs]);
    } catch (cause) {
      const got = reason(cause);
      const misfit =
        /invalid (dimensions|rank)|unexpected input data type|is missing in 'feeds'|out of data bounds|does not match data length/i.test(
          got,
        );
      throw misfit
        ? dataError('The data does not fit the model.', {
            got,
            cause,
            hint: 'Compare with the inputs that `resect inspect` lists.',
          })
        : modelError('The model failed while running.', { got, cause });
    }
    const fetched: Feeds = {};
    for (const [name, value] of Object.entries(results)) {
      const tensor = isTensor(value) && fromOrt(value);
      if (tensor) fetched[name] = tensor;
    }
    return fetched;
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

/** Opens a session, hands it to `use`, and releases it whatever happens. */
export async function withSession<T>(
  model: string | Uint8Array,
  options: SessionOptions,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const session = await Session.open(model, options);
  try {
    return await use(session);
  } finally {
    await session.release();
  }
}

function toSpec(meta: Ort.InferenceSession.ValueMetadata): InputSpec[] {
  if (!meta.isTensor) return [];
  return [{ name: meta.name, dtype: meta.type, dims: [...meta.shape] }];
}

const isTensor = (value: Ort.OnnxValue): value is Ort.Tensor => 'data' in value && 'dims' in value;

function toOrt(ort: typeof Ort, { dtype, dims, data }: TensorData): Ort.Tensor {
  // From Node 24 on the runtime wants half floats as Float16Array; we carry their bits.
  const Half = (
    globalThis as { Float16Array?: new (b: ArrayBufferLike, o: number, n: number) => Uint16Array }
  ).Float16Array;
  const values =
    dtype === 'float16' && Half ? new Half(data.buffer, data.byteOffset, data.length) : data;
  return new ort.Tensor(dtype as 'float32', values as Float32Array, dims);
}

function fromOrt({ type, data, dims }: Ort.Tensor): TensorData | undefined {
  if (type === 'string' || type === 'int4' || type === 'uint4' || Array.isArray(data))
    return undefined;
  const bits =
    type === 'float16' && !(data instanceof Uint16Array)
      ? new Uint16Array(data.buffer, data.byteOffset, data.length)
      : data;
  return { dtype: type, dims: [...dims], data: bits as TensorData['data'] };
}

/** The runtime's message without its prefix of codes and source locations. */
function reason(cause: unknown): string {
  const text = String((cause as Error)?.message ?? cause).split('\n')[0];
  return text
    .replace(/^.*?status (code|message):?\s*/i, '')
    .replace(/\S*\/onnxruntime\/\S+\s/g, '')
    .slice(0, 400);
}
