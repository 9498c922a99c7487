import { batches, openDataset, type TensorData } from '../../../../src/data/index.js';
import { rangesFromBatchNorm } from '../../../../src/methods/compress/formats/batch-norm-ranges.js';
import {
  encodeModel,
  Model,
  type ModelProto,
  type NodeProto,
  parseModel,
  serializeModel,
  type TensorProto,
} from '../../../../src/onnx/index.js';
import { type Feeds, type SessionOptions, withSession } from '../../../../src/runtime/session.js';
import { random } from '../../../autodiff/check-gradient.js';
import { resnet8 } from '../../../support/fixtures.js';
import { floats, model, value } from '../../../support/protos.js';

/** A model in memory, as if read from a file. */
export const fromProto = (proto: ModelProto): Model => parseModel(encodeModel(proto));

/** float32 values in [-1, 1), the same for the same seed. */
export function noise(length: number, seed = 1): Float32Array {
  const next = random(seed);
  return Float32Array.from({ length }, () => 2 * next() - 1);
}

export const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

export const stored = (name: string, dims: number[], seed = 1): TensorProto =>
  floats(name, dims, noise(product(dims), seed));

export const float32 = (dims: number[], seed = 2): TensorData => ({
  dtype: 'float32',
  dims,
  data: noise(product(dims), seed),
});

/** A network from `x` to `y`. */
export const network = (
  nodes: NodeProto[],
  initializer: TensorProto[],
  dims: (number | string)[],
  opset = 13,
): Model =>
  fromProto(
    model(
      { node: nodes, initializer, input: [value('x', dims)], output: [{ name: 'y' }] },
      { irVersion: 7, opsetImport: [{ version: opset }] },
    ),
  );

/** γ in [0.5, 1.5), β and mean in [-1, 1), variance in [0.5, 1.5): names `prefix.0` to `prefix.3`. */
export function normParameters(prefix: string, channels: number, seed = 5): TensorProto[] {
  const positive = (s: number) => noise(channels, s).map((v) => 1 + v / 2);
  return [
    positive(seed),
    noise(channels, seed + 1),
    noise(channels, seed + 2),
    positive(seed + 3),
  ].map((values, i) => floats(`${prefix}.${i}`, [channels], values));
}

export const normInputs = (x: string, prefix: string): string[] => [
  x,
  ...[0, 1, 2, 3].map((i) => `${prefix}.${i}`),
];

/** What a model puts out. */
export async function run(
  source: Model,
  feeds: Feeds,
  optimization: SessionOptions['optimization'] = 'disabled',
): Promise<Feeds> {
  const bytes = await serializeModel(source);
  return withSession(bytes, { threads: 1, optimization }, (session) => session.run(feeds));
}

export const outputOf = async (
  source: Model,
  feeds: Feeds,
  optimization?: SessionOptions['optimization'],
): Promise<number[]> => {
  const [first] = Object.values(await run(source, feeds, optimization));
  return Array.from(first.data, Number);
};

/** Values of the main graph besides its outputs. */
export async function valuesOf(source: Model, feeds: Feeds, names: string[]): Promise<Feeds> {
  const { graph } = source.proto;
  const output = names.map((name) => ({ name }));
  const variant = new Model({ ...source.proto, graph: graph && { ...graph, output } });
  for (const [tensor, edit] of source.edits) variant.edits.set(tensor, edit);
  return run(variant, feeds);
}

export const opTypes = ({ proto }: Model): (string | undefined)[] =>
  (proto.graph?.node ?? []).map(({ opType }) => opType);

export const initializer = ({ proto }: Model, name: string): TensorProto => {
  const found = proto.graph?.initializer.find((t) => t.name === name);
  if (!found) throw new Error(`no ${name}`);
  return found;
};

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
}

/** Feeds of images of the resnet8 test data, `count` of them spread over the classes. */
export async function* images(
  input: string,
  count: number,
  batch = 100,
): AsyncGenerator<{ feeds: Feeds; labels: number[] }> {
  const specs = [{ name: 'image', dtype: 'float32', dims: ['batch', 1, 28, 28] }];
  const dataset = await openDataset(resnet8.test, specs);
  const step = Math.floor(dataset.length / count);
  const indices = Array.from({ length: count }, (_, i) => i * step);
  for await (const { feeds, labels } of batches(dataset, indices, batch, specs))
    yield { feeds: { [input]: feeds.image }, labels: labels.map(Number) };
}

/** Share of images whose largest logit is their label's. */
export async function accuracy(
  source: Model,
  count: number,
  optimization: SessionOptions['optimization'],
): Promise<number> {
  const bytes = await serializeModel(source);
  return withSession(bytes, { threads: 1, optimization }, async (session) => {
    let right = 0;
    for await (const { feeds, labels } of images(session.inputs[0].name, count)) {
      const { data, dims } = (await session.run(feeds)).logits;
      const classes = dims[1];
      for (const [row, label] of labels.entries()) {
        const scores = Array.from(data.subarray(row * classes, (row + 1) * classes), Number);
        if (scores.indexOf(Math.max(...scores)) === label) right++;
      }
    }
    return right / count;
  });
}

/** Ranges from a model's BatchNormalizations; the normalised pixels lie in [-0.8102, 2.0227]. */
export const imageRanges = (source: Model) => {
  const input = source.proto.graph?.input[0].name ?? '';
  return rangesFromBatchNorm(source, { inputs: new Map([[input, { min: -0.8102, max: 2.0227 }]]) });
};

/** Halves to even, without the tricks of the code under test; never -0. */
export function even(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x) + 0;
  return floor % 2 === 0 ? floor : floor + 1;
}
