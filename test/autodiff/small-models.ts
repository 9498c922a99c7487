import { type GradientModel, gradients, type Target } from '../../src/autodiff/gradients.js';
import type { Floats } from '../../src/autodiff/optimizer.js';
import type { TensorData } from '../../src/data/index.js';
import {
  encodeFloat32,
  Model,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../../src/onnx/index.js';
import type { Feeds } from '../../src/runtime/session.js';
import { model, node, value } from '../support/protos.js';
import { random } from './check-gradient.js';

type FloatType = 'float32' | 'float64' | 'float16';

export const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

/** Numbers in [-1, 1), the same for the same seed. */
export function noise(length: number, seed: number): Float64Array {
  const next = random(seed);
  return Float64Array.from({ length }, () => 2 * next() - 1);
}

/** A stored tensor of `noise`. */
export function stored(
  name: string,
  shape: number[],
  dtype: FloatType = 'float64',
  seed = 1,
): TensorProto {
  const values = noise(product(shape), seed);
  const bytes =
    dtype === 'float64'
      ? new Uint8Array(values.buffer)
      : encodeFloat32(Float32Array.from(values), dtype);
  return makeTensor({ name, dtype, shape, bytes });
}

export const float64 = (dims: number[], seed = 2): TensorData => ({
  dtype: 'float64',
  dims,
  data: noise(product(dims), seed),
});

export const float32 = (dims: number[], seed = 2): TensorData => ({
  dtype: 'float32',
  dims,
  data: Float32Array.from(noise(product(dims), seed)),
});

export const int64 = (dims: number[], values: readonly number[]): TensorData => ({
  dtype: 'int64',
  dims,
  data: BigInt64Array.from(values, BigInt),
});

/** A small network: `x`, then whatever nodes, to `y`. */
export function network(
  nodes: NodeProto[],
  parameters: TensorProto[],
  { dims = ['batch', 3], dtype = 'float64' as FloatType, outputs = ['y'] } = {},
): ModelProto {
  return model({
    node: nodes,
    initializer: parameters,
    input: [value('x', dims, dtype)],
    output: outputs.map((name) => ({ name })),
  });
}

/** `x [..., 3]` times `w [3, classes]`, then `head`, such as a Softmax. */
export const scores = (
  classes: number,
  head?: NodeProto,
  dims: (number | string)[] = ['batch', 3],
) =>
  network(
    [node('MatMul', ['x', 'w'], [head ? 'z' : 'y']), ...(head ? [head] : [])],
    [stored('w', [3, classes])],
    { dims },
  );

export const asModel = (proto: ModelProto): Model => new Model(proto);

/** Opens a model, hands it to `use`, and releases it. */
export async function withGradients<T>(
  source: Model | ModelProto,
  options: Parameters<typeof gradients>[1],
  use: (model: GradientModel) => Promise<T>,
): Promise<T> {
  const opened = await gradients(source instanceof Model ? source : asModel(source), options);
  try {
    return await use(opened);
  } finally {
    await opened.release();
  }
}

/** Gradients of a model by central differences of its loss, in float64: exact to about 1e-10. */
export async function differences(
  model: GradientModel,
  feeds: Feeds,
  target: Target,
): Promise<Map<string, Floats>> {
  const slopes = new Map<string, Floats>();
  for (const [name, values] of model.values) {
    const slope = new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const kept = values[i];
      const at = async (step: number) => {
        values[i] = kept + step;
        const { loss } = await model.run(feeds, target);
        values[i] = kept;
        return loss;
      };
      const h = 1e-3;
      slope[i] =
        (8 * ((await at(h)) - (await at(-h))) - (await at(2 * h)) + (await at(-2 * h))) / (12 * h);
    }
    slopes.set(name, slope);
  }
  return slopes;
}
