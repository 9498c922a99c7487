import { Tensor } from 'onnxruntime-node';
import type { z } from 'zod';
import { inferTypes } from '../../../src/autodiff/types.js';
import { modelInputs } from '../../../src/graph/interface.js';
import { compressModel } from '../../../src/methods/compress/compress.js';
import type { CompressLayer } from '../../../src/methods/compress/layers.js';
import { parameters } from '../../../src/methods/compress/parameters.js';
import type { Context, Surgery } from '../../../src/methods/method.js';
import {
  encodeModel,
  type Model,
  type ModelProto,
  makeTensor,
  parseModel,
  readTensorFloat32,
  serializeModel,
  tensorInfo,
} from '../../../src/onnx/index.js';
import { inRepository } from '../../support/cli.js';
import { floats, value } from '../../support/protos.js';
import { distance, type Output, runOnce } from '../../support/run.js';
import { normals } from '../sparsify/random.js';

export type Given = z.input<typeof parameters>;

export const context: Context = {
  selects: () => true,
  threads: 1,
  seed: 0,
  progress: () => {},
};

export interface Compressed {
  /** As it would be read from the file that is written. */
  proto: ModelProto;
  surgery: Surgery<CompressLayer>;
}

/** The model with one channel in every place where `align` allows it, unless it is given. */
export async function compressed(
  source: ModelProto | Model,
  given: Given,
  more: Partial<Context> = {},
): Promise<Compressed> {
  const model = parseModel(encodeModel('proto' in source ? source.proto : source));
  const parsed = parameters.parse({ align: 1, ...given });
  const surgery = await compressModel(model, parsed, { ...context, ...more });
  return { proto: parseModel(await serializeModel(model)).proto, surgery };
}

export const golden = (name: string): string => inRepository(`fixtures/golden/udfc/${name}`);

/** Weights of standard deviation √(2 / inputs), biases and shifts of 0.3, scales and variances in [0.5, 1.5]. */
export function randomized(proto: ModelProto, seed: number): ModelProto {
  const next = normals(seed);
  const graph = proto.graph!;
  const initializer = graph.initializer.map((tensor) => {
    const { name, dtype, shape, elements } = tensorInfo(tensor);
    if (dtype !== 'float32' || !/^[wp]\d/.test(name)) return tensor;
    const [outputs] = shape;
    const spread = shape.length > 1 ? Math.sqrt((2 * outputs) / elements) : 0.3;
    const value = name.startsWith('p')
      ? () => 0.5 + 1 / (1 + Math.exp(-next()))
      : () => spread * next();
    return floats(name, shape, Float32Array.from({ length: elements }, value));
  });
  return { ...proto, graph: { ...graph, initializer } };
}

/** The model with the shapes of all its values written down, for inputs as they are declared. */
export async function described(proto: ModelProto): Promise<ModelProto> {
  const graph = proto.graph!;
  const types = await inferTypes(proto);
  const made = graph.node.flatMap(({ output }) => output).filter(Boolean);
  const describe = (name: string) => {
    const { dims = [], dtype } = types.get(name)!;
    return value(name, [...dims], dtype);
  };
  const outputs = new Set(graph.output.map(({ name = '' }) => name));
  return {
    ...proto,
    graph: {
      ...graph,
      valueInfo: made.filter((name) => !outputs.has(name)).map(describe),
      output: [...outputs].map(describe),
    },
  };
}

/** Standard normal numbers for every input. */
export function feedsOf(proto: ModelProto, seed = 7): Record<string, Tensor> {
  const next = normals(seed);
  return Object.fromEntries(
    modelInputs(proto).map(({ name, dims = [], dtype }) => {
      const sizes = dims.map((d) => (typeof d === 'number' ? d : 2));
      const numbers = Float32Array.from({ length: sizes.reduce((a, b) => a * b, 1) }, next);
      if (dtype !== 'float16') return [name, new Tensor('float32', numbers, sizes)];
      const halves = Uint16Array.from(numbers, half);
      return [name, new Tensor('float16', halves, sizes)];
    }),
  );
}

/** The nearest half-precision number's bits, of numbers that are not extreme. */
function half(x: number): number {
  const [bits] = new Uint32Array(Float32Array.of(x).buffer);
  const exponent = ((bits >>> 23) & 0xff) - 127 + 15;
  if (exponent <= 0) return (bits >>> 16) & 0x8000;
  return ((bits >>> 16) & 0x8000) | (exponent << 10) | ((bits >>> 13) & 0x3ff);
}

const fromHalf = (h: number): number => {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 31;
  const fraction = h & 1023;
  return exponent === 0
    ? sign * fraction * 2 ** -24
    : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
};

/** The outputs as numbers, whatever type the runtime gives. */
export async function outputsOf(
  proto: ModelProto,
  { optimize = false }: { optimize?: boolean } = {},
): Promise<Record<string, Output>> {
  const ran = await runOnce(proto, feedsOf(proto), { optimize });
  return Object.fromEntries(
    Object.entries(ran).map(([name, { dims, data }]) => {
      const numbers = data instanceof Uint16Array ? Float32Array.from(data, fromHalf) : data;
      return [name, { dims, data: numbers }];
    }),
  );
}

/** What the runtime makes the shapes of values, whatever the model says. */
export async function dimsOf(
  proto: ModelProto,
  names: readonly string[],
): Promise<Map<string, readonly number[]>> {
  const output = [...new Set(names)].map((name) => ({ name }));
  const ran = await outputsOf({ ...proto, graph: { ...proto.graph!, output, valueInfo: [] } });
  return new Map(Object.entries(ran).map(([name, { dims }]) => [name, [...dims]]));
}

/** The largest relative distance of the outputs of two models. */
export async function apart(a: ModelProto, b: ModelProto): Promise<number> {
  const [left, right] = [await outputsOf(a), await outputsOf(b)];
  return Math.max(...Object.keys(left).map((name) => distance(left[name], right[name])));
}

/** Elements of all float weights, in initializers and Constant nodes. */
export function parameterCount({ graph }: ModelProto): number {
  const tensors = [
    ...graph!.initializer,
    ...graph!.node.flatMap(({ attribute }) => attribute.flatMap(({ t }) => (t ? [t] : []))),
  ];
  return tensors
    .map(tensorInfo)
    .filter(({ dtype }) => dtype.startsWith('float'))
    .reduce((sum, { elements }) => sum + elements, 0);
}

/** An initializer's values. */
export async function valuesOf(proto: ModelProto, name: string): Promise<Float32Array> {
  const tensor = proto.graph!.initializer.find((t) => t.name === name);
  if (!tensor) throw new Error(`no ${name}`);
  return Float32Array.from(await readTensorFloat32(parseModel(encodeModel(proto)), tensor));
}

/** The model with other values in some of its float32 initializers. */
export async function edited(
  proto: ModelProto,
  edit: (name: string, values: Float32Array, shape: readonly number[]) => void,
): Promise<ModelProto> {
  const graph = proto.graph!;
  const initializer = await Promise.all(
    graph.initializer.map(async (tensor) => {
      const { name, dtype, shape } = tensorInfo(tensor);
      if (dtype !== 'float32') return tensor;
      const values = await valuesOf(proto, name);
      edit(name, values, shape);
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      return makeTensor({ name, dtype, shape, bytes });
    }),
  );
  return { ...proto, graph: { ...graph, initializer } };
}
