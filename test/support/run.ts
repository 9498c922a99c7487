import { InferenceSession, Tensor } from 'onnxruntime-node';
import { encodeModel, type ModelProto } from '../../src/onnx/index.js';

type Values = Float32Array | Float64Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array;

export interface Output {
  dims: readonly number[];
  data: Values;
}

/** A float32 tensor of the runtime. */
export const floatTensor = (dims: number[], values: ArrayLike<number>): Tensor =>
  new Tensor('float32', Float32Array.from(values), dims);

/**
 * Runs a model in ONNX Runtime, without the project's own sessions, as an independent witness.
 * @param model a path, or a model that is encoded here
 * @param optimize off unless asked for: what is compared bit for bit must run the same kernels
 */
export async function runOnce(
  model: string | ModelProto,
  feeds: Record<string, Tensor>,
  { outputs, optimize = false }: { outputs?: string[]; optimize?: boolean } = {},
): Promise<Record<string, Output>> {
  const options: InferenceSession.SessionOptions = {
    intraOpNumThreads: 1,
    graphOptimizationLevel: optimize ? 'all' : 'disabled',
    logSeverityLevel: 4,
  };
  const session =
    typeof model === 'string'
      ? await InferenceSession.create(model, options)
      : await InferenceSession.create(encodeModel(model), options);
  try {
    const results = await (outputs ? session.run(feeds, outputs) : session.run(feeds));
    return Object.fromEntries(
      Object.entries(results).map(([name, { dims, data }]) => [
        name,
        { dims, data: data as Values },
      ]),
    );
  } finally {
    await session.release();
  }
}

/** The largest distance between two results, relative to the largest value of the first. */
export function distance(a: Output, b: Output): number {
  expect(b.dims).toEqual(a.dims);
  let scale = 0;
  let largest = 0;
  for (let i = 0; i < a.data.length; i++) {
    scale = Math.max(scale, Math.abs(Number(a.data[i])));
    largest = Math.max(largest, Math.abs(Number(a.data[i]) - Number(b.data[i])));
  }
  return scale > 0 ? largest / scale : largest;
}

/** The model with more of its main graph's values as outputs. */
export const withOutputs = (model: ModelProto, names: string[]): ModelProto => ({
  ...model,
  graph: model.graph && {
    ...model.graph,
    output: [...model.graph.output, ...names.map((name) => ({ name }))],
  },
});
