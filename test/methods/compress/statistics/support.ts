import { readFileSync } from 'node:fs';
import { inferTypes } from '../../../../src/autodiff/types.js';
import { parseNpyHeader } from '../../../../src/data/npy.js';
import type { Dataset, TensorData } from '../../../../src/data/types.js';
import { Graph } from '../../../../src/graph/graph.js';
import type { Part } from '../../../../src/methods/calibration/collect.js';
import type { Shapes } from '../../../../src/methods/compress/statistics/layout.js';
import {
  type LayerVisit,
  type PropagateOptions,
  propagate,
} from '../../../../src/methods/compress/statistics/propagate.js';
import {
  Model,
  type ModelProto,
  makeTensor,
  type NodeProto,
  readModel,
  type TensorProto,
} from '../../../../src/onnx/index.js';
import { model, value } from '../../../support/protos.js';

export const goldenFile = (name: string): string =>
  new URL(`../../../../fixtures/golden/udfc/${name}`, import.meta.url).pathname;

export const readGolden = (name: string): Promise<Model> => readModel(goldenFile(name));

/** Shapes of all values at a batch of one. */
export function shapesOf(proto: ModelProto): Promise<Shapes> {
  const fixed = (dim: { dimValue?: unknown }) => ({ dimValue: Number(dim.dimValue ?? 1) });
  const input = (proto.graph?.input ?? []).map(({ name, type }) => ({
    name,
    type: {
      tensorType: {
        elemType: type?.tensorType?.elemType,
        shape: { dim: type?.tensorType?.shape?.dim.map(fixed) ?? [] },
      },
    },
  }));
  return inferTypes({ ...proto, graph: { ...proto.graph!, input } });
}

/** The visits of a walk by the layers' names. */
export async function walk(
  source: Model,
  options: Partial<PropagateOptions> = {},
): Promise<Map<string, LayerVisit>> {
  const visits = new Map<string, LayerVisit>();
  const onLayer = options.onLayer ?? (() => undefined);
  await propagate(source, new Graph(source.proto), {
    shapes: await shapesOf(source.proto),
    ...options,
    onLayer: (visit) => {
      visits.set(visit.node.input[1], visit);
      return onLayer(visit);
    },
  });
  return visits;
}

/** A network from `x` of the given dims; the last node's output is that of the network. */
export function network(dims: number[], nodes: NodeProto[], parameters: TensorProto[]): Model {
  const [last] = nodes[nodes.length - 1].output;
  return new Model(
    model({
      node: nodes,
      initializer: parameters,
      input: [value('x', ['batch', ...dims])],
      output: [{ name: last }],
    }),
  );
}

/** Standard normal numbers, the same for the same seed. */
export function normal(length: number, seed: number): Float32Array {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Float32Array.from(
    { length },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

/** A stored tensor of normal numbers, times `scale`, plus `shift`. */
export function parameter(
  name: string,
  shape: number[],
  seed: number,
  scale = 1,
  shift = 0,
): TensorProto {
  const values = normal(
    shape.reduce((a, b) => a * b, 1),
    seed,
  ).map((v) => scale * v + shift);
  return makeTensor({ name, dtype: 'float32', shape, bytes: new Uint8Array(values.buffer) });
}

/** Samples for one input, of all of its values, [samples, ...dims]. */
export function samplesOf(name: string, { dims, data }: TensorData): Dataset {
  const [length, ...rest] = dims;
  const size = rest.reduce((a, b) => a * b, 1);
  return {
    path: 'memory',
    task: 'none',
    length,
    files: [],
    example: async (i) => ({
      inputs: {
        [name]: { dtype: 'float32', dims: rest, data: data.slice(i * size, (i + 1) * size) },
      },
    }),
  };
}

export const gaussianSamples = (name: string, samples: number, dims: number[]): Dataset => {
  const all = [samples, ...dims];
  const data = normal(
    all.reduce((a, b) => a * b, 1),
    99,
  );
  return samplesOf(name, { dtype: 'float32', dims: all, data });
};

export function goldenSamples(): Dataset {
  const bytes = readFileSync(goldenFile('netA.input8.npy'));
  const { dims, offset } = parseNpyHeader(bytes, 'netA.input8.npy');
  const data = new Float32Array(new Uint8Array(bytes.subarray(offset)).buffer);
  return samplesOf('input', { dtype: 'float32', dims, data });
}

export const partOf = (source: Model, dataset: Dataset, samples = dataset.length): Part => ({
  model: source,
  proto: source.proto,
  calibration: { dataset, indices: Array.from({ length: samples }, (_, i) => i) },
  threads: 1,
  progress: () => {},
});

export const diagonal = (covariance: Float64Array, n: number): Float64Array =>
  Float64Array.from({ length: n }, (_, i) => covariance[i * (n + 1)]);

/** Pearson's. */
export function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const mean = (x: ArrayLike<number>) => Array.from(x).reduce((s, v) => s + v, 0) / x.length;
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += (a[i] - ma) * (b[i] - mb);
    aa += (a[i] - ma) ** 2;
    bb += (b[i] - mb) ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}
